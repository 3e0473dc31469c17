#!/usr/bin/env python3
"""Writes the Grafana dashboards beside it; with --check it only says whether they are up to date.

A board is rows of panels, a panel is queries with a unit and a description. What all panels have in common stands once, below.
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
# Where this repository's docs/ can be read; the variable `docs` of each board, so that it can be changed in Grafana.
DOCS = "https://o365feed.example/docs"

JOB = 'job=~"$job"'
TENANT = f'{JOB}, tenant=~"$tenant"'
INSTANCE = f'{JOB}, instance=~"$instance"'
SOURCE = "{{tenant}} {{content_type}}"

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Upper bounds of green and yellow: the objective is ten minutes.
LATE = [300, 600]
# Below every value. What lies below it is no value, and has no colour.
LEAST = -10**9


def panel(title, description, unit, *queries, kind="timeseries", width=12, height=8, runbook="alarms", steps=None, most=None, text="auto"):
    """`queries` are (expression, legend); `steps` where yellow and red begin, downwards when they fall; `text` what a number shows."""
    custom = {"fillOpacity": 10, "showPoints": "never", "spanNulls": False} if kind == "timeseries" else {}
    defaults = {"unit": unit, "custom": custom, "thresholds": thresholds(steps)}
    if unit != "dtdurations":
        defaults["min"] = 0
    if most is not None:
        defaults["max"] = most
    if kind != "timeseries":
        defaults["color"] = {"mode": "thresholds"}
        defaults["noValue"] = "none"
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": width, "h": height},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options(kind, text),
        "links": [{"title": "Runbook", "url": f"${{docs}}/runbook.md#{runbook}", "targetBlank": True}],
        "targets": [target(at, expr, legend, kind) for at, (expr, legend) in enumerate(queries)],
    }


def target(at, expr, legend, kind):
    is_instant = kind != "timeseries"
    return {
        "refId": chr(ord("A") + at),
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend,
        "instant": is_instant,
        "range": not is_instant,
    }


def thresholds(steps):
    if steps is None:
        colors = [("green", LEAST)]
    elif steps[0] < steps[1]:
        colors = [("green", LEAST), ("yellow", steps[0]), ("red", steps[1])]
    else:
        colors = [("red", LEAST), ("yellow", steps[1]), ("green", steps[0])]
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in [("text", None), *colors]]}


def options(kind, text):
    if kind == "timeseries":
        legend = {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["lastNotNull", "max"]}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "none", "textMode": text, "justifyMode": "auto"}


def stat(title, description, unit, expr, **more):
    return panel(title, description, unit, (expr, ""), kind="stat", width=4, height=4, **more)


def quantiles(metric, labels, by=(), legend=""):
    """The median and the slowest hundredth of a histogram."""
    by = ", ".join(("le", *by))
    rate = f"sum by ({by}) (rate({metric}_bucket{{{labels}}}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {rate})", f"{word} {legend}".strip()) for q, word in ((0.5, "median"), (0.99, "99 %"))]


def all_gaps(labels):
    """In the time shown. What a process counted before it was first scraped is no increase: of one that started in that time all counts."""
    gaps, young = f"o365feed_gaps_total{{{labels}}}", "time() - process_start_time_seconds < $__range_s"
    return f"sum(({gaps} and on (job, namespace, instance) ({young})) > 0 or increase({gaps}[$__range]))"


def row(title):
    return {"type": "row", "title": title, "collapsed": False, "gridPos": {"w": 24, "h": 1}, "panels": []}


# What several boards show.

def delivered(labels):
    return panel("Delivered age", "How late a reader of Kafka is at most: the age of the moment before which everything is published, or named as a gap. The objective is ten minutes.", "s",
                 (f"max by (tenant, content_type) (o365feed_delivered_age_seconds{{{labels}}})", SOURCE), steps=LATE, runbook="fallingbehind")


def freshness(labels):
    return panel("Freshness", "Age of the newest content that was published. It grows while the service offers nothing new, so for a quiet type it says little.", "s",
                 (f"max by (tenant, content_type) (o365feed_freshness_seconds{{{labels}}})", SOURCE), runbook="fallingbehind")


def watermark(labels):
    return panel("Watermark age", "Age of the moment before which everything has been listed. A new source begins at a week, and falls while it catches up.", "s",
                 (f"max by (tenant, content_type) (o365feed_watermark_age_seconds{{{labels}}})", SOURCE), steps=[1800, 3600], runbook="stale")


def backlog(labels):
    return panel("Backlog", "Contents that are listed and not yet settled.", "short",
                 (f"sum by (tenant, content_type) (o365feed_backlog_contents{{{labels}}})", SOURCE), runbook="nearexpiry")


def expiry(labels):
    return panel("Time to expiry", "Time until the first waiting content can no longer be fetched, and is lost. Nothing waits where there is no line.", "dtdurations",
                 (f"min by (tenant, content_type) (o365feed_oldest_backlog_expires_in_seconds{{{labels}}})", SOURCE), steps=[302400, 60480], runbook="nearexpiry")


def throughput(labels):
    return panel("Records published", "Records committed to Kafka.", "cps",
                 (f"sum by (content_type) (rate(o365feed_records_published_total{{{labels}}}[$__rate_interval]))", "{{content_type}}"), runbook="notcommitting")


def volume(labels):
    return panel("Bytes published", "Bytes of these records, before compression.", "Bps",
                 (f"sum by (content_type) (rate(o365feed_record_bytes_published_total{{{labels}}}[$__rate_interval]))", "{{content_type}}"), runbook="notcommitting")


def left_out(labels):
    each = [("o365feed_records_duplicate_total", "came again"), ("o365feed_records_filtered_total", "filtered"),
            ("o365feed_records_without_id_total", "without an id")]
    return panel("Records left out, or without an id", "Repeats and filtered records are not published. A record without a usable id is published, and known by its bytes.", "cps",
                 *[(f"sum(rate({name}{{{labels}}}[$__rate_interval]))", word) for name, word in each])


def contents(labels):
    return panel("Contents", "Contents that came into the listings, and how they were settled.", "cps",
                 (f"sum(rate(o365feed_listings_total{{{labels}}}[$__rate_interval]))", "listed"),
                 (f"sum by (outcome) (rate(o365feed_contents_total{{{labels}}}[$__rate_interval]))", "{{outcome}}"), runbook="gap")


def gaps(labels):
    return panel("Gaps", "What could not be had, by reason. Each is named in the gaps topic. What a process met before it was first scraped is in the sum only.", "short",
                 (f"sum by (reason) (increase(o365feed_gaps_total{{{labels}}}[$__rate_interval]))", "{{reason}}"), runbook="gap")


def budget(labels):
    return panel("Budget used", "Share of the quota that the last minute used. Near 1 the connector waits for its own budget.", "percentunit",
                 (f"max by (tenant) (o365feed_quota_used_ratio{{{labels}}})", "{{tenant}}"), most=1, runbook="throttled")


def pace(labels):
    return panel("Pace", "Share of the quota that the pace allows. Each throttling halves it, each good minute gives a twentieth back.", "percentunit",
                 (f"min by (tenant) (o365feed_pace_ratio{{{labels}}})", "{{tenant}}"), steps=[0.5, 0.2], most=1, runbook="throttled")


def throttled(labels):
    return panel("Throttled (AF429)", "Answers that asked to slow down, a minute.", "cpm",
                 (f"sum by (tenant) (rate(o365feed_throttled_total{{{labels}}}[$__rate_interval])) * 60", "{{tenant}}"), runbook="throttled")


def waits(labels):
    return panel("Waits", "Pauses that throttling caused, in seconds a second. Waiting for our own budget is not in it.", "s",
                 (f"sum by (tenant) (rate(o365feed_throttle_wait_seconds_total{{{labels}}}[$__rate_interval]))", "{{tenant}}"), runbook="throttled")


def requests(labels):
    return panel("Requests", "Requests a minute by operation and status. `none`: no answer came.", "cpm",
                 (f"sum by (operation, status) (rate(o365feed_api_requests_total{{{labels}}}[$__rate_interval])) * 60", "{{operation}} {{status}}"), runbook="microsoft-the-service")


def errors(labels):
    return panel("Errors", "Calls that ended badly, a minute, by code. No line where there was none.", "cpm",
                 (f"sum by (tenant, code) (rate(o365feed_api_errors_total{{{labels}}}[$__rate_interval])) * 60", "{{tenant}} {{code}}"), runbook="microsoft-the-service")


def token(labels):
    return panel("Token", "Time left of the access token in use, 0 where there is none. A new one comes before it ends.", "dtdurations",
                 (f"min by (tenant) (o365feed_token_expires_in_seconds{{{labels}}})", "{{tenant}}"), steps=[600, 300], runbook="tokenexpiring")


def ledger(labels):
    return panel("Ledger", "Memory that the ids of published records take.", "bytes",
                 (f"sum by (tenant, content_type) (o365feed_ledger_bytes{{{labels}}})", SOURCE), runbook="restartedoften")


def ledger_ids(labels):
    return panel("Ids in the ledger", "Ids of published records held in memory against repeats.", "short",
                 (f"sum by (tenant, content_type) (o365feed_ledger_ids{{{labels}}})", SOURCE), runbook="restartedoften")


def missed(labels):
    return panel("Notifications missed", "Contents that polling found and no notification named in time. Nothing is lost.", "short",
                 (f"sum by (tenant, content_type) (increase(o365feed_webhook_missed_total{{{labels}}}[$__rate_interval]))", SOURCE), runbook="webhookmissed")


OVERVIEW = [
    row("Now"),
    stat("Delivered age", "The worst of all tenants and types. The objective is ten minutes.", "s",
         f"max(o365feed_delivered_age_seconds{{{TENANT}}})", steps=LATE, runbook="fallingbehind"),
    stat("On time", "Share of the time shown in which everything was delivered within ten minutes. Time in which no process showed anything is left out.", "percentunit",
         f"avg_over_time((max(o365feed_delivered_age_seconds{{{TENANT}}}) <= bool 600)[$__range:1m])", steps=[0.99, 0.95], most=1, runbook="fallingbehind"),
    stat("Backlog", "Contents that are listed and not yet settled.", "short", f"sum(o365feed_backlog_contents{{{TENANT}}})", runbook="nearexpiry"),
    stat("Time to expiry", "Until the first waiting content is lost.", "dtdurations",
         f"min(o365feed_oldest_backlog_expires_in_seconds{{{TENANT}}})", steps=[302400, 60480], runbook="nearexpiry"),
    stat("Gaps", "In the time shown. Each is named in the gaps topic.", "short", all_gaps(TENANT), steps=[0.5, 1], runbook="gap"),
    panel("Processes", "By version.", "short", (f"count by (version) (o365feed_build_info{{{JOB}}})", "{{version}}"), kind="stat", width=4, height=4, runbook="restartedoften", text="value_and_name"),
    row("Late?"),
    delivered(TENANT), freshness(TENANT), watermark(TENANT), backlog(TENANT),
    row("Throughput"),
    throughput(TENANT), volume(TENANT), contents(TENANT), left_out(TENANT),
    panel("Delay of events", "From the event to its publication. Most of it is the service's: minutes to days.", "s",
          *quantiles("o365feed_event_delay_seconds", JOB, ["content_type"], "{{content_type}}"), runbook="fallingbehind"),
    row("Losses"),
    gaps(TENANT), expiry(TENANT),
    row("Webhook"),
    panel("Requests to the receiver", "By outcome.", "cpm", (f"sum by (outcome) (rate(o365feed_webhook_requests_total{{{JOB}}}[$__rate_interval])) * 60", "{{outcome}}"), runbook="webhookmissed"),
    panel("Notified contents", "By outcome.", "cpm", (f"sum by (outcome) (rate(o365feed_webhook_notifications_total{{{JOB}}}[$__rate_interval])) * 60", "{{outcome}}"), runbook="webhookmissed"),
    missed(TENANT),
    panel("Certificate of the receiver", "Time left. No line where something else ends TLS.", "dtdurations",
          (f"min by (instance) (o365feed_webhook_certificate_expires_in_seconds{{{JOB}}})", "{{instance}}"), steps=[1209600, 172800], runbook="certificateexpiring"),
]

THROTTLING = [
    row("Budget"),
    budget(TENANT), pace(TENANT),
    panel("Requests and quota", "Requests a minute beside what the tenant may make. Other products of the tenant use the same quota.", "cpm",
          (f"sum by (tenant) (rate(o365feed_api_requests_total{{{TENANT}}}[$__rate_interval])) * 60", "{{tenant}} used"),
          (f"max by (tenant) (o365feed_quota_requests_per_minute{{{TENANT}}})", "{{tenant}} quota"), runbook="throttled"),
    token(TENANT),
    row("Throttling"),
    throttled(TENANT), waits(TENANT),
    row("Requests"),
    requests(TENANT), errors(TENANT),
    panel("Time to the answer's head", "Request sent until the headers arrived; the body is not in it.", "s",
          *quantiles("o365feed_api_request_seconds", JOB, ["operation"], "{{operation}}"), width=24),
]

KAFKA = [
    row("Transactions"),
    panel("Transactions", "By outcome. `unknown`: the broker's answer did not come, and the next producer finds out.", "cps",
          (f"sum by (outcome) (rate(o365feed_transactions_total{{{INSTANCE}}}[$__rate_interval]))", "{{outcome}}"), runbook="transactionsfailing"),
    panel("Time of a commit", "From its first call to the broker's answer.", "s", *quantiles("o365feed_transaction_commit_seconds", INSTANCE), runbook="transactionsfailing"),
    panel("Producer's queue", "Bytes handed to the producer and not yet acknowledged.", "bytes", (f"sum by (instance) (o365feed_producer_queue_bytes{{{INSTANCE}}})", "{{instance}}"), runbook="notcommitting"),
    panel("Producers replaced", "After an error that they could not recover from.", "short",
          (f"sum by (instance) (increase(o365feed_producer_recreated_total{{{INSTANCE}}}[$__rate_interval]))", "{{instance}}"), runbook="transactionsfailing"),
    row("Group"),
    panel("Partitions", "Of the listings topic: owned, and those of them whose ledger is read.", "short",
          (f"sum by (instance) (o365feed_partitions_owned{{{INSTANCE}}})", "{{instance}} owned"),
          (f"sum by (instance) (o365feed_partitions_restored{{{INSTANCE}}})", "{{instance}} at work"), runbook="nopartitions"),
    panel("Rebalances", "Partitions that came, and each time that some went.", "short",
          (f"sum by (instance) (increase(o365feed_rebalances_total{{{INSTANCE}}}[$__rate_interval]))", "{{instance}}"), runbook="nopartitions"),
    row("Ledger"),
    ledger(INSTANCE), ledger_ids(INSTANCE),
    panel("Time to read a ledger", "Of one partition, after it was taken. No line where none was.", "s", *quantiles("o365feed_ledger_restore_seconds", INSTANCE), runbook="nopartitions"),
    row("Processes"),
    panel("Memory", "Resident. The ledger is the part that grows with the tenants.", "bytes", (f"process_resident_memory_bytes{{{INSTANCE}}}", "{{instance}}"), runbook="restartedoften"),
    panel("Processor", "Cores in use.", "short", (f"rate(process_cpu_seconds_total{{{INSTANCE}}}[$__rate_interval])", "{{instance}}"), runbook="nearexpiry"),
    panel("Starts", "In the time shown.", "short", (f"changes(process_start_time_seconds{{{INSTANCE}}}[$__range])", "{{instance}}"), kind="stat", runbook="restartedoften", steps=[1, 4], text="value_and_name"),
]

ONE_TENANT = [
    row("Now"),
    stat("Delivered age", "The worst of all types. The objective is ten minutes.", "s", f"max(o365feed_delivered_age_seconds{{{TENANT}}})", steps=LATE, runbook="fallingbehind"),
    stat("Backlog", "Contents that are listed and not yet settled.", "short", f"sum(o365feed_backlog_contents{{{TENANT}}})", runbook="nearexpiry"),
    stat("Time to expiry", "Until the first waiting content is lost.", "dtdurations", f"min(o365feed_oldest_backlog_expires_in_seconds{{{TENANT}}})", steps=[302400, 60480], runbook="nearexpiry"),
    stat("Pace", "Share of the quota that the pace allows.", "percentunit", f"min(o365feed_pace_ratio{{{TENANT}}})", steps=[0.5, 0.2], most=1, runbook="throttled"),
    stat("Gaps", "In the time shown.", "short", all_gaps(TENANT), steps=[0.5, 1], runbook="gap"),
    panel("Served by", "The process that owns the tenant's partition. Empty when none does.", "short", (f"count by (instance) (o365feed_watermark_age_seconds{{{TENANT}}})", "{{instance}}"), kind="stat", width=4, height=4, runbook="notserved", text="name"),
    row("Late?"),
    delivered(TENANT), freshness(TENANT), watermark(TENANT), backlog(TENANT), expiry(TENANT), gaps(TENANT),
    row("Throughput"),
    throughput(TENANT), volume(TENANT), contents(TENANT), left_out(TENANT), ledger(TENANT), ledger_ids(TENANT),
    row("Service"),
    budget(TENANT), pace(TENANT), throttled(TENANT), waits(TENANT), requests(TENANT), errors(TENANT), token(TENANT), missed(TENANT),
]


def variable(name, label, query, many=True):
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"{name}s"},
        "refresh": 2,
        "sort": 1,
        "multi": many,
        "includeAll": many,
        **({"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}} if many else {}),
    }


def variables(names):
    job = variable("job", "Job", "label_values(o365feed_build_info, job)")
    all_of_them = {
        "tenants": variable("tenant", "Tenant", f"label_values(o365feed_listings_total{{{JOB}}}, tenant)"),
        "tenant": variable("tenant", "Tenant", f"label_values(o365feed_listings_total{{{JOB}}}, tenant)", many=False),
        "instances": variable("instance", "Process", f"label_values(o365feed_build_info{{{JOB}}}, instance)"),
    }
    return [
        {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "refresh": 1},
        job,
        *[all_of_them[name] for name in names],
        {"type": "textbox", "name": "docs", "label": "Documentation", "query": DOCS, "current": {"text": DOCS, "value": DOCS}},
    ]


def board(name, title, description, names, panels):
    return {
        "uid": f"o365feed-{name}",
        "title": f"o365feed: {title}",
        "description": description,
        "tags": ["o365feed"],
        "editable": False,
        "schemaVersion": 39,
        "version": 1,
        "graphTooltip": 1,
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": variables(names)},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "title": "o365feed", "tags": ["o365feed"], "asDropdown": True, "includeVars": True, "keepTime": True}],
        "panels": placed(panels),
    }


def placed(panels):
    """From left to right, and down where a line is full."""
    x = y = height = 0
    out = []
    for number, one in enumerate(panels, start=1):
        width = one["gridPos"]["w"]
        if 24 < x + width:
            x, y, height = 0, y + height, 0
        out.append({"id": number, **one, "gridPos": {"x": x, "y": y, **one["gridPos"]}})
        x, height = x + width, max(height, one["gridPos"]["h"])
    return out


BOARDS = [
    board("overview", "overview", "Is everything delivered, in time, and is anything lost?", ["tenants"], OVERVIEW),
    board("throttling", "throttling", "The request budget of each tenant, and what the service does with our requests.", ["tenants"], THROTTLING),
    board("kafka", "Kafka", "Transactions, the consumer group, the ledger, and the processes.", ["instances"], KAFKA),
    board("tenant", "one tenant", "All that is known of one tenant.", ["tenant"], ONE_TENANT),
]


def main():
    is_check = sys.argv[1:] == ["--check"]
    wanted = {f"{one['uid'].removeprefix('o365feed-')}.json": json.dumps(one, indent=2, ensure_ascii=False) + "\n" for one in BOARDS}
    there = {path.name: path.read_text(encoding="utf-8") for path in HERE.glob("*.json")}
    stale = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if is_check:
        for name in stale:
            print(f"dashboards/{name} is not what dashboards/make.py writes; run it", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        if name in wanted:
            (HERE / name).write_text(wanted[name], encoding="utf-8")
        else:
            (HERE / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
