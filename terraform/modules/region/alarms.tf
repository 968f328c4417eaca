# Alarms on a region. Each names its recipe in docs/handbook.md.

locals {
  handbook = "docs/handbook.md"

  # From the log's `stats` lines and events, one series for the fleet.
  log_alarms = {
    watermark = {
      metric      = "watermark_age"
      statistic   = "Minimum"
      threshold   = var.alarms.watermark_seconds * 1000
      minutes     = 3
      missing     = "breaching"
      description = "The region's watermark is older than ${var.alarms.watermark_seconds} s, or nobody publishes one: readers see stale data. ${local.handbook}#what-to-look-at-first"
    }
    lag = {
      metric      = "lag"
      statistic   = "Maximum"
      threshold   = var.alarms.lag_seconds * 1000
      minutes     = 5
      missing     = "breaching"
      description = "The cache-writers are more than ${var.alarms.lag_seconds} s behind the stream, or say nothing. ${local.handbook}#a-shard-is-stuck"
    }
    gap = {
      metric      = "gaps"
      statistic   = "Sum"
      threshold   = 0
      minutes     = 1
      missing     = "notBreaching"
      description = "Records of the region's stream were gone before they were read. ${local.handbook}#changes-were-lost-on-their-way"
    }
    dead-letters = {
      metric      = "dead_letters"
      statistic   = "Sum"
      threshold   = 0
      minutes     = 1
      missing     = "notBreaching"
      description = "Something was set aside. ${local.handbook}#a-poison-record"
    }
    errors = {
      metric      = "errors"
      statistic   = "Sum"
      threshold   = 0
      minutes     = 5
      missing     = "notBreaching"
      description = "Lines of level ERROR, minute after minute: each needs a person. ${local.handbook}#what-to-look-at-first"
    }
    mismatches = {
      metric      = "mismatches"
      statistic   = "Sum"
      threshold   = 0
      minutes     = 1
      missing     = "notBreaching"
      description = "An entry differs from the master, and stays so. ${local.handbook}#one-row-looks-wrong"
    }
  }

  stream_alarms = {
    iterator-age = {
      metric      = "GetRecords.IteratorAgeMilliseconds"
      statistic   = "Maximum"
      threshold   = var.alarms.lag_seconds * 1000
      minutes     = 5
      description = "A reader of the stream is more than ${var.alarms.lag_seconds} s behind. ${local.handbook}#a-shard-is-stuck"
    }
    # Half of what the stream keeps: after that, what is not read is gone.
    iterator-age-page = {
      metric      = "GetRecords.IteratorAgeMilliseconds"
      statistic   = "Maximum"
      threshold   = var.stream.retention_hours * 3600 * 1000 / 2
      minutes     = 1
      description = "Half of the time that the stream keeps records is over. ${local.handbook}#a-shard-is-stuck"
    }
    read-throttled = {
      metric      = "ReadProvisionedThroughputExceeded"
      statistic   = "Average"
      threshold   = 0.01
      minutes     = 10
      description = "Reads are throttled: more than these cache-writers read the stream. ${local.handbook}#a-target-throttles"
    }
    write-throttled = {
      metric      = "WriteProvisionedThroughputExceeded"
      statistic   = "Average"
      threshold   = 0.05
      minutes     = 10
      description = "The stream throttles the aggregators: it needs more shards. ${local.handbook}#a-target-throttles"
    }
    put-throttled = {
      metric      = "PutRecords.ThrottledRecords"
      statistic   = "Average"
      threshold   = 10
      minutes     = 10
      description = "Entries of PutRecords calls are throttled: the stream needs more shards. ${local.handbook}#a-target-throttles"
    }
    put-failed = {
      metric      = "PutRecords.FailedRecords"
      statistic   = "Average"
      threshold   = 1
      minutes     = 10
      description = "Entries of PutRecords calls fail inside the service. ${local.handbook}#a-region-was-down-for-3-hours"
    }
  }

  cache_alarms = {
    evictions = {
      metric      = "Evictions"
      statistic   = "Sum"
      threshold   = 0
      minutes     = 1
      description = "The cache evicts, which it must not: its policy was changed. ${local.handbook}#the-cache-is-full"
    }
    memory = {
      metric      = "DatabaseMemoryUsagePercentage"
      statistic   = "Maximum"
      threshold   = var.alarms.memory_percent
      minutes     = 5
      description = "A cache node is ${var.alarms.memory_percent} % full: at 100 % it refuses changes. ${local.handbook}#the-cache-is-full"
    }
    cpu = {
      metric      = "EngineCPUUtilization"
      statistic   = "Average"
      threshold   = var.alarms.cpu_percent
      minutes     = 10
      description = "A cache node is busy: it needs more shards. ${local.handbook}#the-cache-is-full"
    }
    # Longer than `redis.rewind_ms` covers, and a failover would lose writes for good.
    replication = {
      metric      = "ReplicationLag"
      statistic   = "Maximum"
      threshold   = 30
      minutes     = 3
      description = "A replica is 30 s behind: a failover to it loses that much. ${local.handbook}#redis-lost-its-data"
    }
  }
  # One alarm for each node and metric: a full node is a node, not an average.
  node_alarms = { for pair in setproduct(local.node_ids, keys(local.cache_alarms)) : "${pair[0]}-${pair[1]}" => merge(
    local.cache_alarms[pair[1]], { node = pair[0] }
  ) }
}

resource "aws_cloudwatch_metric_alarm" "log" {
  for_each            = local.log_alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = module.service.namespace
  metric_name         = each.value.metric
  statistic           = each.value.statistic
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanThreshold"
  period              = 60
  evaluation_periods  = each.value.minutes
  datapoints_to_alarm = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "stream" {
  for_each            = local.stream_alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = "AWS/Kinesis"
  metric_name         = each.value.metric
  dimensions          = { StreamName = aws_kinesis_stream.this.name }
  statistic           = each.value.statistic
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanThreshold"
  period              = 60
  evaluation_periods  = each.value.minutes
  datapoints_to_alarm = ceil(each.value.minutes / 2)
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "cache" {
  for_each            = local.node_alarms
  alarm_name          = each.key
  alarm_description   = each.value.description
  namespace           = "AWS/ElastiCache"
  metric_name         = each.value.metric
  dimensions          = { CacheClusterId = each.value.node }
  statistic           = each.value.statistic
  threshold           = each.value.threshold
  comparison_operator = "GreaterThanThreshold"
  period              = 60
  evaluation_periods  = each.value.minutes
  datapoints_to_alarm = each.value.minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "state_throttled" {
  for_each            = toset(["ReadThrottleEvents", "WriteThrottleEvents"])
  alarm_name          = "${var.name}-state-${each.key}"
  alarm_description   = "The state table throttles: leases and checkpoints are late. ${local.handbook}#the-state-table-throttles"
  namespace           = "AWS/DynamoDB"
  metric_name         = each.key
  dimensions          = { TableName = module.state.state_table }
  statistic           = "Sum"
  threshold           = 0
  comparison_operator = "GreaterThanThreshold"
  period              = 60
  evaluation_periods  = 5
  datapoints_to_alarm = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = var.tags
}
