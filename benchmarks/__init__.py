"""mIoU, latency, parameters and memory of networks and artifacts, and the report that shows them.

`suite.run_benchmark` measures each row in a process of its own; `report.write_report` renders a result.
"""
