output "target" {
  description = "What the master region's module must know of this region: `regions = { NAME = { target = ... } }`."
  value = {
    region      = local.region
    stream_name = aws_kinesis_stream.this.name
    stream_arn  = aws_kinesis_stream.this.arn
    kms_key_arn = local.kms_key_arn
  }
}

output "cache_endpoint" {
  description = "The cache's configuration endpoint, for readers: rediss+cluster://ENDPOINT:6379."
  value       = aws_elasticache_replication_group.this.configuration_endpoint_address
}

output "cache_security_group_id" {
  description = "The cache's security group."
  value       = aws_security_group.cache.id
}

output "reader_policy_arns" {
  description = "Policies for bidders' roles: `reader`, and `filler` for those that fill what they miss. None with passwords."
  value       = { for name, policy in aws_iam_policy.reader : name => policy.arn }
}

output "cache_users" {
  description = "The cache's users: `writer`, `operator`, `reader`, `filler`. None with passwords."
  value       = { for name, user in aws_elasticache_user.this : name => user.user_name }
}

output "config_toml" {
  description = "The cache-writers' configuration."
  value       = local.config_toml
}

output "operator_policy_arn" {
  description = "The policy for those who run the operators' commands."
  value       = aws_iam_policy.operator.arn
}

output "role_arn" {
  description = "The cache-writers' role."
  value       = module.service.role_arn
}

output "role_policy" {
  description = "The policy of the cache-writers' role, as JSON."
  value       = module.service.role_policy
}

output "security_group_id" {
  description = "The cache-writers' security group."
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
  description = "Names of what no other fleet of the account may have, in whatever region: of roles, policies, the dashboard."
  value = concat(
    module.service.account_wide_names,
    [aws_iam_policy.operator.name],
    [for policy in aws_iam_policy.reader : policy.name],
    [aws_cloudwatch_dashboard.this.dashboard_name],
  )
}
