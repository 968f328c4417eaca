# Alarms on the aggregators. Each names its recipe in docs/handbook.md.

locals {
  handbook = "docs/handbook.md"

  # From the log's `stats` lines and events, one series for the fleet.
  log_alarms = {
    lag = {
      metric      = "lag"
      statistic   = "Maximum"
      threshold   = var.alarms.lag_seconds * 1000
      minutes     = 5
      missing     = "breaching"
      description = "The aggregators are more than ${var.alarms.lag_seconds} s behind, or say nothing. ${local.handbook}#a-shard-is-stuck"
    }
    lag-page = {
      metric      = "lag"
      statistic   = "Maximum"
      threshold   = var.alarms.lag_page_seconds * 1000
      minutes     = 1
      missing     = "ignore"
      description = "The aggregators are ${var.alarms.lag_page_seconds} s behind; the tables' streams forget after 86400 s. ${local.handbook}#a-shard-is-stuck"
    }
    region-does-not-answer = {
      metric      = "regions_not_answering"
      statistic   = "Maximum"
      threshold   = 0
      minutes     = 10
      missing     = "notBreaching"
      description = "A region's stream does not answer: the region is parked. ${local.handbook}#a-region-was-down-for-3-hours"
    }
    gap = {
      metric      = "gaps"
      statistic   = "Sum"
      threshold   = 0
      minutes     = 1
      missing     = "notBreaching"
      description = "Records were gone before a region had them. ${local.handbook}#a-region-was-down-for-30-hours"
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
  }
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
