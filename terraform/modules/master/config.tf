# The aggregators' configuration. tests/ hold it against tests/expected/aggregator.toml, and a test of the aggregator
# checks that it takes that file.

locals {
  # A TOML string is a JSON string; what JSON is escaped with for the sake of HTML is not needed.
  filters = { for name, region in var.regions : name => {
    for table, filter in region.tables : table => [
      for line in [
        filter.condition == null ? "" : "condition = ${replace(replace(replace(jsonencode(filter.condition), "\\u003c", "<"), "\\u003e", ">"), "\\u0026", "&")}",
        filter.projection == null ? "" : "projection = ${jsonencode(filter.projection)}",
        filter.suppress_unchanged == null ? "" : "suppress_unchanged = ${filter.suppress_unchanged}",
        filter.suppress_excluded == null ? "" : "suppress_excluded = ${filter.suppress_excluded}",
      ] : line if line != ""
    ]
  } }

  config_toml = templatefile("${path.module}/templates/aggregator.toml.tftpl", {
    region                     = local.region
    state_table                = module.state.state_table
    dead_letter_table          = module.state.dead_letter_table
    dead_letter_retention_days = var.dead_letter_retention_days
    tables                     = var.tables
    regions                    = var.regions
    filters                    = local.filters
    buckets                    = var.buckets
    shutdown_deadline_ms       = var.shutdown_deadline_ms
  })
}
