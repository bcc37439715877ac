"""Networks: the light student and the built-in teacher."""
