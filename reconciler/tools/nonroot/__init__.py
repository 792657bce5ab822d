"""Finds what keeps containers from running without root: in Containerfiles, image configs, workloads and Helm charts.

Pure analysers: text in, flaws out. What reads the file system is `files`; who shows the flaws is the kind NonRootPolicy
and `reconciler nonroot`.
"""
