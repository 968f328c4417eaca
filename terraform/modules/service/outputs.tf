output "namespace" {
  description = "The CloudWatch namespace of the metrics that are made of the log."
  value       = local.namespace
}

output "log_group" {
  description = "The log group."
  value       = aws_cloudwatch_log_group.this.name
}

output "role_arn" {
  description = "The workers' role."
  value       = aws_iam_role.this.arn
}

output "role_policy" {
  description = "The policy of the workers' role."
  value       = aws_iam_role_policy.this.policy
}

output "security_group_id" {
  description = "The workers' security group."
  value       = aws_security_group.this.id
}

output "service" {
  description = "What to upgrade and to look at: the ECS service's or the autoscaling group's name."
  value       = local.is_fargate ? one(aws_ecs_service.this[*].name) : one(aws_autoscaling_group.this[*].name)
}

output "container_definitions" {
  description = "The task's containers, as JSON; null on EC2."
  value       = one(aws_ecs_task_definition.this[*].container_definitions)
}

output "user_data" {
  description = "What an instance runs when it starts; null on Fargate."
  value       = local.user_data
}

output "account_wide_names" {
  description = "Names of what no other fleet of the account may have, in whatever region."
  value = concat(
    [aws_iam_role.this.name], aws_iam_role.execution[*].name, aws_iam_instance_profile.this[*].name,
  )
}
