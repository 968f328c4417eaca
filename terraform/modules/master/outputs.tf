output "config_toml" {
  description = "The aggregators' configuration."
  value       = local.config_toml
}

output "operator_policy_arn" {
  description = "The policy for those who run the operators' commands."
  value       = aws_iam_policy.operator.arn
}

output "role_arn" {
  description = "The aggregators' role."
  value       = module.service.role_arn
}

output "role_policy" {
  description = "The policy of the aggregators' role, as JSON."
  value       = module.service.role_policy
}

output "security_group_id" {
  description = "The aggregators' security group."
  value       = module.service.security_group_id
}

output "state_table" {
  description = "The state table's name."
  value       = module.state.state_table
}

output "service" {
  description = "The ECS service's or the autoscaling group's name."
  value       = module.service.service
}

output "container_definitions" {
  description = "The task's containers, as JSON; null on EC2."
  value       = module.service.container_definitions
}

output "user_data" {
  description = "What an instance runs when it starts; null on Fargate."
  value       = module.service.user_data
}

output "account_wide_names" {
  description = "Names of what no other fleet of the account may have, in whatever region: of roles, policies."
  value       = concat(module.service.account_wide_names, [aws_iam_policy.operator.name])
}
