variable "name" {
  description = "The fleet's name: the key's alias, and the beginning of its log groups' names."
  type        = string
}

variable "tags" {
  description = "Tags of everything that can have them."
  type        = map(string)
  default     = {}
}
