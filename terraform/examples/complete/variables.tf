variable "table_arns" {
  description = "The tables in us-east-1, by name. Their streams are enabled, with new images."
  type        = map(string)
}

variable "images" {
  description = "The image of each daemon, `aggregator` and `cache-writer`, which their regions can pull."
  type        = map(string)
}

variable "networks" {
  description = "For each region its VPC, and private subnets of two zones with a way to AWS' services."
  type = map(object({
    vpc_id     = string
    subnet_ids = list(string)
  }))
}

variable "bidders" {
  description = "For each target region the security groups that bidders are in."
  type        = map(list(string))
}

variable "alarm_topics" {
  description = "For each region the SNS topics that alarms go to."
  type        = map(list(string))
}
