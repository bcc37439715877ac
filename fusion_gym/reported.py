"""The metrics that are reported, by name: a file of its own, for what needs only the names does not need torch."""

# What papers on infrared-visible fusion report most, in the order of tables: of the fused image alone, then relations.
REPORTED = ("EN", "SD", "SF", "AG", "MI", "SCD", "VIF", "Qabf", "SSIM")
INVENTED, AMPLIFIED = "invented", "amplified"
ARTEFACTS = (INVENTED, AMPLIFIED)  # stand beside them in every table, and never among what methods are ranked by
