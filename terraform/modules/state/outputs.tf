output "state_table" {
  description = "The state table's name."
  value       = aws_dynamodb_table.state.name
}

output "dead_letter_table" {
  description = "The name of the table of dead letters."
  value       = aws_dynamodb_table.dead_letters.name
}

output "daemon_statements" {
  description = "Statements of a policy: what a daemon may do with the tables."
  value       = local.daemon_statements
}

output "operator_statements" {
  description = "Statements of a policy: what an operator's commands may do beside that."
  value       = local.operator_statements
}
