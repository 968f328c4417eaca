variable "name" {
  description = "The fleet's name: that of the service, of the state table, and the beginning of others'."
  type        = string
  default     = "warmcast-aggregator"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,25}$", var.name))
    error_message = "name: lower-case letters, digits and hyphens, a letter first, at most 26."
  }
}

# What is read and where it is sent
# ---------------------------------

variable "tables" {
  description = <<-END
    The tables to tail, by name: `arn`; `kms_key_arn`, if they are encrypted with a key of the account;
    `initial_position`, "trim-horizon" or "latest", where a stream that was never read is begun. Their streams are their
    owners': enable them with the view type NEW_IMAGE or NEW_AND_OLD_IMAGES.
  END
  type = map(object({
    arn              = string
    kms_key_arn      = optional(string)
    initial_position = optional(string)
  }))

  validation {
    condition     = length(var.tables) > 0
    error_message = "tables: at least one."
  }
  validation {
    condition = alltrue([
      for name, table in var.tables : can(regex("^arn:[^:]+:dynamodb:[^:]+:[0-9]{12}:table/[^/*]+$", table.arn))
    ])
    error_message = "tables: each needs the ARN of a table, not of its stream."
  }
  validation {
    condition     = alltrue([for name, table in var.tables : endswith(table.arn, ":table/${name}")])
    error_message = "tables: the keys are the tables' names, as in their ARNs."
  }
}

variable "check_streams" {
  description = "Whether to look the tables up, and refuse to go on if one has no stream, or one without new images."
  type        = bool
  default     = false
}

variable "regions" {
  description = <<-END
    The target regions, by name. `target` is the output of that name of the region's module. The rest is as in
    config/aggregator.toml: `initial_position`, `record_format`, `shard_bytes_per_second`, and for each table in `tables`
    a `condition`, a `projection`, `suppress_unchanged`, `suppress_excluded`.
  END
  type = map(object({
    target = object({
      region      = string
      stream_name = string
      stream_arn  = string
      kms_key_arn = string
    })
    initial_position       = optional(string)
    record_format          = optional(string)
    shard_bytes_per_second = optional(number)
    tables = optional(map(object({
      condition          = optional(string)
      projection         = optional(list(string))
      suppress_unchanged = optional(bool)
      suppress_excluded  = optional(bool)
    })), {})
  }))

  validation {
    condition     = length(var.regions) > 0
    error_message = "regions: at least one."
  }
  validation {
    condition = alltrue(flatten([
      for region in var.regions : [for table in keys(region.tables) : contains(keys(var.tables), table)]
    ]))
    error_message = "regions: a filter is of one of `tables`."
  }
}

variable "buckets" {
  description = "Changes are batched by bucket: a power of two, at least the largest shard count of a region's stream. All workers of a fleet must agree on it: change it by stopping them all."
  type        = number
  default     = 64

  validation {
    condition     = contains([for power in range(17) : pow(2, power)], var.buckets)
    error_message = "buckets: a power of two, 1 to 65536."
  }
}

variable "dead_letter_retention_days" {
  description = "How long a dead letter stays in its table."
  type        = number
  default     = 30
}

variable "kcl_tables" {
  description = "ARNs of lease tables of KCL applications, which operators may import."
  type        = list(string)
  default     = []
}

variable "alarms" {
  description = <<-END
    When alarms go off: `lag_seconds`, the fleet is behind; `lag_page_seconds`, it is in danger: half of the 24 hours that
    the tables' streams keep records.
  END
  type = object({
    lag_seconds      = optional(number, 300)
    lag_page_seconds = optional(number, 43200)
  })
  default = {}
}

# Where it runs
# -------------

variable "compute" {
  description = <<-END
    `kind` "fargate" or "ec2", and what either needs.

    Fargate: `image`, which has the daemon in /usr/bin (Containerfile); `user`, its numeric user; `config_image`, a small one with a shell,
    which writes the configuration file and ends; `cpu` (1,024 is one core) and `memory_mib`, in one of Fargate's
    combinations; `image_repository_arn`, if the image is in ECR; `cluster_arn`, to use one that is there;
    `secrets_kms_key_arns`, keys that secrets are encrypted with; `health_check_command`, in place of the daemon's `health`,
    which asks whether it is alive, and must never ask for more.

    EC2: `ami_id`, a Debian 12 or Ubuntu 24.04 of the instance type's architecture; `deb_url` and `deb_sha256`, the
    package; `agent_deb_url`, the CloudWatch agent's; `instance_type`, `disk_gib`.

    Both: `stop_timeout_s`, longer than the daemon's `shutdown_deadline_ms` (AWS: at most 120 on Fargate).
  END
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

  validation {
    condition     = contains(["fargate", "ec2"], var.compute.kind)
    error_message = "compute.kind: \"fargate\" or \"ec2\"."
  }
  validation {
    condition     = var.compute.kind != "fargate" || var.compute.image != null
    error_message = "compute.image: Fargate needs it."
  }
  validation {
    condition = var.compute.kind != "ec2" || alltrue([
      for value in [var.compute.ami_id, var.compute.deb_url, var.compute.deb_sha256, var.compute.agent_deb_url] : value != null
    ])
    error_message = "compute: EC2 needs ami_id, deb_url, deb_sha256 and agent_deb_url."
  }
  validation {
    condition     = var.compute.deb_sha256 == null || can(regex("^[0-9a-f]{64}$", var.compute.deb_sha256))
    error_message = "compute.deb_sha256: 64 hexadecimal digits."
  }
  validation {
    condition     = contains(["arm64", "x86_64"], var.compute.architecture)
    error_message = "compute.architecture: \"arm64\" or \"x86_64\"."
  }
  validation {
    condition     = var.compute.stop_timeout_s >= 30 && var.compute.stop_timeout_s <= 120
    error_message = "compute.stop_timeout_s: 30 to 120."
  }
}

variable "network" {
  description = "The VPC, private subnets of at least two zones, and more security groups of the workers. In subnets without a NAT the services need VPC endpoints, or the workers public addresses."
  type = object({
    vpc_id             = string
    subnet_ids         = list(string)
    security_group_ids = optional(list(string), [])
    assign_public_ip   = optional(bool, false)
  })

  validation {
    condition     = length(var.network.subnet_ids) >= 2
    error_message = "network.subnet_ids: at least two, in different zones."
  }
}

variable "scaling" {
  description = <<-END
    At least `min` and at most `max` workers. A worker more (10 %) when the fleet was more than `lag_seconds` behind for
    `evaluation_periods` minutes, half as many more when it is more than `lag_seconds_much`. The CPU is kept near
    `cpu_percent`; `scale_in_is_automatic = false` keeps those that are there.
  END
  type = object({
    min                   = optional(number, 2)
    max                   = optional(number, 8)
    lag_seconds           = optional(number, 15)
    lag_seconds_much      = optional(number, 300)
    cpu_percent           = optional(number, 60)
    scale_in_cooldown_s   = optional(number, 900)
    scale_out_cooldown_s  = optional(number, 180)
    evaluation_periods    = optional(number, 3)
    instance_warmup_s     = optional(number, 120)
    scale_in_is_automatic = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.scaling.min >= 1 && var.scaling.min <= var.scaling.max
    error_message = "scaling: 1 <= min <= max; two or more survive the loss of one without waiting for its replacement."
  }
  validation {
    condition     = var.scaling.lag_seconds < var.scaling.lag_seconds_much
    error_message = "scaling: lag_seconds must be less than lag_seconds_much."
  }
}

variable "environment" {
  description = "Any other key of the configuration, as the daemon's environment: { WARMCAST__BATCH__LINGER_MS = \"20\" }. No secrets."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.environment) : !can(regex("(PASSWORD|SECRET|TOKEN|SECRET_ACCESS_KEY)$", name))])
    error_message = "environment: secrets would be in the state, and in the task definition."
  }
}

variable "shutdown_deadline_ms" {
  description = "How long a stop may take: shorter than compute.stop_timeout_s."
  type        = number
  default     = 25000
}

# Everything else
# ---------------

variable "alarm_actions" {
  description = "What alarms are sent to, and that they are over: ARNs of SNS topics and the like."
  type        = list(string)
  default     = []
}

variable "create_kms_key" {
  description = "Whether to make a key for the fleet. Otherwise `kms_key_arn` is one, which must let CloudWatch Logs use it."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "The key that everything is encrypted with, if none is made."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[^:]+:kms:[^:]+:[0-9]{12}:key/", var.kms_key_arn))
    error_message = "kms_key_arn: the ARN of a key (not of an alias: policies do not resolve it)."
  }
}

variable "deletion_protection" {
  description = "Whether the fleet's tables refuse to be deleted."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "How long CloudWatch Logs keeps the log; one of the periods that it knows."
  type        = number
  default     = 365
}

variable "permissions_boundary_arn" {
  description = "A policy that bounds the roles made here."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
