variable "name" {
  description = "The service's name, of at most 32 characters: its role, log group, task family or instances."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,31}$", var.name))
    error_message = "name: lower-case letters, digits and hyphens, a letter first, at most 32."
  }
}

variable "daemon" {
  description = "What is run: \"aggregator\" or \"cache-writer\"."
  type        = string

  validation {
    condition     = contains(["aggregator", "cache-writer"], var.daemon)
    error_message = "daemon: \"aggregator\" or \"cache-writer\"."
  }
}

variable "region" {
  description = "The AWS region of the provider."
  type        = string
}

variable "config_toml" {
  description = "The daemon's configuration file. No secrets: it is in the task definition or the user data."
  type        = string
}

variable "environment" {
  description = "Environment of the daemon: WARMCAST__SECTION__KEY wins over the file. No secrets."
  type        = map(string)
  default     = {}
}

variable "secrets" {
  description = "Environment variables whose values are secrets: for each the ARN in Secrets Manager or of an SSM parameter. Read when a task starts, so never in Terraform's state."
  type        = map(string)
  default     = {}
}

variable "statements" {
  description = "Statements of the policy of the daemon's role."
  type        = any
}

variable "compute" {
  description = "See the variable of the same name of the module that uses this one."
  type = object({
    kind                 = string
    architecture         = optional(string, "arm64")
    stop_timeout_s       = optional(number, 60)
    image                = optional(string)
    image_repository_arn = optional(string)
    user                 = optional(string, "65532:65532")
    config_image         = optional(string, "public.ecr.aws/docker/library/busybox:1.37")
    health_check_command = optional(list(string))
    cluster_arn          = optional(string)
    secrets_kms_key_arns = optional(list(string), [])
    cpu                  = optional(number, 1024)
    memory_mib           = optional(number, 2048)
    ami_id               = optional(string)
    deb_url              = optional(string)
    deb_sha256           = optional(string)
    agent_deb_url        = optional(string)
    instance_type        = optional(string, "c7g.large")
    disk_gib             = optional(number, 16)
  })
}

variable "network" {
  description = "The VPC, its subnets, and more security groups of the workers."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = optional(list(string), [])
    # Tasks in public subnets without a NAT reach the services only with an address of their own.
    assign_public_ip = optional(bool, false)
  })
}

variable "scaling" {
  description = "How many workers there are, and when there are more. See the module that uses this one."
  type = object({
    min                   = number
    max                   = number
    lag_seconds           = number
    lag_seconds_much      = number
    cpu_percent           = number
    scale_in_cooldown_s   = number
    scale_out_cooldown_s  = number
    evaluation_periods    = number
    instance_warmup_s     = number
    scale_in_is_automatic = bool
  })
}

variable "log_metrics" {
  description = "More metrics from the daemon's JSON log lines: pattern, value (a number or a field), unit."
  type = map(object({
    pattern = string
    value   = string
    unit    = optional(string, "None")
  }))
  default = {}
}

variable "log_retention_days" {
  description = "How long CloudWatch Logs keeps the log."
  type        = number
  default     = 365
}

variable "kms_key_arn" {
  description = "The key that the log is encrypted with."
  type        = string
}

variable "permissions_boundary_arn" {
  description = "A policy that bounds the roles."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
