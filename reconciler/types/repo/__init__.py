"""What lies in a repository of files beside the desired state: audits only, nothing here is ever changed by a plan."""
