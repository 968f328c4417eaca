variable "name" {
  description = "The state table's name. The table of dead letters has the same and `-dead-letters`."
  type        = string
}

variable "region" {
  description = "The AWS region of the provider."
  type        = string
}

variable "kms_key_arn" {
  description = "The key that both tables are encrypted with."
  type        = string
}

variable "deletion_protection" {
  description = "Whether the tables refuse to be deleted."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
