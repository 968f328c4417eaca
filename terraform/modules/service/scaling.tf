# More workers when the fleet is behind, fewer when they idle.
#
# The lag is no target to be tracked: it is near zero as long as there are enough workers, and grows without bound when
# there are not. So it is a step: one more, or half as many more when it is much. Fewer are decided by the CPU, which says
# how much the workers have to do. A lag that more workers do not mend (a cache that is down, a target that throttles)
# ends at `max`.

locals {
  scaling_steps = [
    { from = 0, to = var.scaling.lag_seconds_much - var.scaling.lag_seconds, percent = 10 },
    { from = var.scaling.lag_seconds_much - var.scaling.lag_seconds, to = null, percent = 50 },
  ]
}

resource "aws_cloudwatch_metric_alarm" "scale_out" {
  alarm_name          = "${var.name}-scale-out"
  alarm_description   = "Not for people: ${var.name} is more than ${var.scaling.lag_seconds} s behind, and gets more workers."
  namespace           = local.namespace
  metric_name         = "lag"
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = var.scaling.evaluation_periods
  threshold           = var.scaling.lag_seconds * 1000
  comparison_operator = "GreaterThanThreshold"
  treat_missing_data  = "notBreaching"
  tags                = var.tags

  alarm_actions = [
    local.is_fargate ? aws_appautoscaling_policy.lag[0].arn : aws_autoscaling_policy.lag[0].arn,
  ]
}

resource "aws_appautoscaling_target" "this" {
  count              = local.is_fargate ? 1 : 0
  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${local.cluster_name}/${aws_ecs_service.this[0].name}"
  min_capacity       = var.scaling.min
  max_capacity       = var.scaling.max
  tags               = var.tags
}

resource "aws_appautoscaling_policy" "lag" {
  count              = local.is_fargate ? 1 : 0
  name               = "${var.name}-lag"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  step_scaling_policy_configuration {
    adjustment_type          = "PercentChangeInCapacity"
    min_adjustment_magnitude = 1
    metric_aggregation_type  = "Maximum"
    cooldown                 = var.scaling.scale_out_cooldown_s

    dynamic "step_adjustment" {
      for_each = local.scaling_steps
      content {
        # Relative to the alarm's threshold, in its unit.
        metric_interval_lower_bound = step_adjustment.value.from * 1000
        metric_interval_upper_bound = step_adjustment.value.to == null ? null : step_adjustment.value.to * 1000
        scaling_adjustment          = step_adjustment.value.percent
      }
    }
  }
}

resource "aws_appautoscaling_policy" "cpu" {
  count              = local.is_fargate ? 1 : 0
  name               = "${var.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.scaling.cpu_percent
    scale_in_cooldown  = var.scaling.scale_in_cooldown_s
    scale_out_cooldown = var.scaling.scale_out_cooldown_s
    disable_scale_in   = !var.scaling.scale_in_is_automatic

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}

resource "aws_autoscaling_policy" "lag" {
  count                     = local.is_fargate ? 0 : 1
  name                      = "${var.name}-lag"
  autoscaling_group_name    = aws_autoscaling_group.this[0].name
  policy_type               = "StepScaling"
  adjustment_type           = "PercentChangeInCapacity"
  min_adjustment_magnitude  = 1
  metric_aggregation_type   = "Maximum"
  estimated_instance_warmup = var.scaling.instance_warmup_s

  dynamic "step_adjustment" {
    for_each = local.scaling_steps
    content {
      metric_interval_lower_bound = step_adjustment.value.from * 1000
      metric_interval_upper_bound = step_adjustment.value.to == null ? null : step_adjustment.value.to * 1000
      scaling_adjustment          = step_adjustment.value.percent
    }
  }
}

resource "aws_autoscaling_policy" "cpu" {
  count                     = local.is_fargate ? 0 : 1
  name                      = "${var.name}-cpu"
  autoscaling_group_name    = aws_autoscaling_group.this[0].name
  policy_type               = "TargetTrackingScaling"
  estimated_instance_warmup = var.scaling.instance_warmup_s

  target_tracking_configuration {
    target_value     = var.scaling.cpu_percent
    disable_scale_in = !var.scaling.scale_in_is_automatic

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
