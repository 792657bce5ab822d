"""Objects of Kubernetes and OpenShift, and audits of them."""
