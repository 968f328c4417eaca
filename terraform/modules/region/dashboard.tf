# The region at a glance: is it fresh, is it behind, does anything throttle, has the cache room.

locals {
  kinesis_metrics = {
    "Stream: bytes" = {
      statistic = "Sum", unit = "bytes", metrics = ["IncomingBytes", "GetRecords.Bytes"]
    }
    "Stream: how far its readers are behind" = {
      statistic = "Maximum", unit = "milliseconds", metrics = ["GetRecords.IteratorAgeMilliseconds"]
    }
    "Stream: throttled and failed" = {
      statistic = "Sum", unit = "records", metrics = [
        "PutRecords.ThrottledRecords", "PutRecords.FailedRecords",
        "WriteProvisionedThroughputExceeded", "ReadProvisionedThroughputExceeded",
      ]
    }
  }
  node_metrics = {
    "Cache: memory, %"         = { statistic = "Maximum", metric = "DatabaseMemoryUsagePercentage" }
    "Cache: engine CPU, %"     = { statistic = "Average", metric = "EngineCPUUtilization" }
    "Cache: evictions"         = { statistic = "Sum", metric = "Evictions" }
    "Cache: replication, s"    = { statistic = "Maximum", metric = "ReplicationLag" }
    "Cache: items"             = { statistic = "Average", metric = "CurrItems" }
    "Cache: connections"       = { statistic = "Maximum", metric = "CurrConnections" }
    "Cache: bytes in, by node" = { statistic = "Sum", metric = "NetworkBytesIn" }
  }
  log_metrics = {
    "Age of the watermark, ms"     = { statistic = "Minimum", metric = "watermark_age" }
    "Lag of the cache-writers, ms" = { statistic = "Maximum", metric = "lag" }
    "Errors, dead letters"         = { statistic = "Sum", metric = "errors", also = ["dead_letters"] }
  }

  panels = concat(
    [for title, panel in local.log_metrics : {
      title = title
      stat  = panel.statistic
      metrics = [
        for metric in concat([panel.metric], try(panel.also, [])) : [module.service.namespace, metric]
      ]
    }],
    [for title, panel in local.kinesis_metrics : {
      title   = title
      stat    = panel.statistic
      metrics = [for metric in panel.metrics : ["AWS/Kinesis", metric, "StreamName", aws_kinesis_stream.this.name]]
    }],
    [for title, panel in local.node_metrics : {
      title   = title
      stat    = panel.statistic
      metrics = [for node in local.node_ids : ["AWS/ElastiCache", panel.metric, "CacheClusterId", node]]
    }],
  )
}

resource "aws_cloudwatch_dashboard" "this" {
  # A dashboard is the account's: another region's of the same name would be overwritten.
  dashboard_name = "${var.name}-${local.region}"

  dashboard_body = jsonencode({
    widgets = [for index, panel in local.panels : {
      type   = "metric"
      x      = (index % 3) * 8
      y      = floor(index / 3) * 6
      width  = 8
      height = 6
      properties = {
        title   = panel.title
        region  = local.region
        view    = "timeSeries"
        period  = 60
        stat    = panel.stat
        metrics = panel.metrics
      }
    }]
  })
}
