variable "name" {
  description = "The fleet's name: that of the service, of the cache, of the state table, and the beginning of others'."
  type        = string
  default     = "warmcast-cache-writer"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,25}$", var.name)) && !strcontains(var.name, "--") && !endswith(var.name, "-")
    error_message = "name: lower-case letters, digits and single hyphens, a letter first, at most 26."
  }
}

# The region's stream
# -------------------

variable "stream" {
  description = <<-END
    The Kinesis stream: `name`; `shards`, or none for the on-demand mode; `retention_hours`, how long cache-writers may be
    down. Shards take 1 MiB and 1,000 records a second each, and there should be at most as many as the aggregators'
    `buckets`.
  END
  type = object({
    name            = optional(string, "warmcast")
    shards          = optional(number)
    retention_hours = optional(number, 24)
  })
  default = {}

  validation {
    condition     = var.stream.retention_hours >= 24 && var.stream.retention_hours <= 8760
    error_message = "stream.retention_hours: 24 to 8760."
  }
}

# The cache
# ---------

variable "cache" {
  description = <<-END
    The Valkey cluster on ElastiCache, which must have memory for the whole working set, as it evicts nothing: `shards`, and
    `replicas` of each, which are in other zones; `node_type`; `engine_version`; `snapshot_retention_days` and the windows.
  END
  type = object({
    engine_version          = optional(string, "8.0")
    node_type               = optional(string, "cache.r7g.large")
    shards                  = optional(number, 1)
    replicas                = optional(number, 1)
    snapshot_retention_days = optional(number, 1)
    snapshot_window         = optional(string, "03:00-04:00")
    maintenance_window      = optional(string, "sun:04:30-sun:05:30")
    reader_security_groups  = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = var.cache.replicas >= 1 && var.cache.replicas <= 5
    error_message = "cache.replicas: 1 to 5: without one a node that is lost is a cache that is lost."
  }
  validation {
    condition     = startswith(var.cache.engine_version, "8.")
    error_message = "cache.engine_version: 8.x, as the parameter group's family is valkey8."
  }
}

variable "auth" {
  description = <<-END
    How the cache knows who connects. `kind` "iam": users of the cache that are made here, with the rights of
    docs/security.md: `NAME` for the cache-writers, `NAME-reader` for readers, `NAME-filler` for readers that fill what they
    miss from the master, `NAME-operator`; tokens are signed by the caller's role, and there is no secret. "password": `user_group_id`,
    a user group that you made, and `username` with `password_secret_arn`, where the password is in Secrets Manager or an
    SSM parameter (Fargate only); it is never in Terraform's state.
  END
  type = object({
    kind                = optional(string, "iam")
    user_group_id       = optional(string)
    username            = optional(string)
    password_secret_arn = optional(string)
  })
  default = {}

  validation {
    condition     = contains(["iam", "password"], var.auth.kind)
    error_message = "auth.kind: \"iam\" or \"password\"."
  }
  validation {
    condition = var.auth.kind == "iam" || alltrue([
      for value in [var.auth.user_group_id, var.auth.username, var.auth.password_secret_arn] : value != null
    ])
    error_message = "auth: \"password\" needs user_group_id, username and password_secret_arn."
  }
}

# The master region, if it is read
# --------------------------------

variable "master" {
  description = <<-END
    The master region's tables, if the region may read them for items whose changes do not say what they are, and to verify
    itself (`verify_keys_per_s`): `region`, and for each of `tables` its `arn` and, if it is encrypted with a key of the
    account, `kms_key_arn`. None: such items are misses until a reader fills them.
  END
  type = object({
    region                    = string
    read_units_per_second_max = optional(number, 1000)
    verify_keys_per_s         = optional(number, 0)
    tables = map(object({
      arn         = string
      kms_key_arn = optional(string)
    }))
  })
  default = null

  validation {
    condition = var.master == null || alltrue([
      for name, table in try(var.master.tables, {}) : can(regex("^arn:[^:]+:dynamodb:[^:]+:[0-9]{12}:table/[^/*]+$", table.arn))
    ])
    error_message = "master.tables: each needs the ARN of a table."
  }
}

variable "entries" {
  description = "How tables are cached, as in config/cache-writer.toml: `write` \"all\" or \"present\", `live_ttl_ms`, `expiry_attribute`, `attributes`."
  type = object({
    write            = optional(string)
    live_ttl_ms      = optional(number)
    expiry_attribute = optional(string)
    attributes       = optional(list(string))
  })
  default = {}
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
    When alarms go off: `watermark_seconds`, the region is stale; `lag_seconds`, cache-writers are behind their stream;
    `memory_percent` and `cpu_percent` of a cache node, the former well before 100, as a full node refuses changes.
  END
  type = object({
    watermark_seconds = optional(number, 120)
    lag_seconds       = optional(number, 120)
    memory_percent    = optional(number, 75)
    cpu_percent       = optional(number, 80)
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
