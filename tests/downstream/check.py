"""Checks what is shipped for consumers of the topics without running it: grammar, topics, and the patterns that read a record's time.
`./x check` runs it, with the packages of requirements.txt."""

import fnmatch
import json
import pathlib
import re

import yaml
from logstash_pipeline_parser import Pipeline

ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KAFKA = (ROOT / "docs/kafka.md").read_text()
TOPICS = re.findall(r"`([^`]+)`", re.search(r"by default (`o365[^|]*)\|", KAFKA).group(1))
HEADERS = re.findall(r"`([^`]+)`", re.search(r"\| headers \|([^;]*);", KAFKA).group(1)) + re.findall(r"header `(\w+)`", KAFKA)
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def main():
    assert len(TOPICS) == 5, f"docs/kafka.md names {TOPICS}"
    assert len(HEADERS) == 7, f"docs/kafka.md names {HEADERS}"
    event, raw = connector("splunk-connect"), connector("splunk-connect-raw")
    assert event["splunk.header.custom"].split(",") == HEADERS, event["splunk.header.custom"]
    props = properties("splunk/props.conf", r"\s*=\s*")
    times(event["timestamp.regex"].replace("(?<", "(?P<"), "time")
    times(f"{props['TIME_PREFIX']}(?P<time>.{{{props['MAX_TIMESTAMP_LOOKAHEAD']}}})", "time")
    breaker = raw["splunk.hec.raw.line.breaker"]
    assert props["LINE_BREAKER"] == f"({breaker})", "the connector writes another line breaker than Splunk looks for"
    assert not any(breaker in line for line in samples()), "a record holds the line breaker"
    assert event["splunk.sourcetypes"] == raw["splunk.sourcetypes"] == "o365:management:activity"
    assert "[o365:management:activity]" in (DEPLOY / "splunk/props.conf").read_text().splitlines()
    logstash()
    elastic()
    filebeat = yaml.safe_load((DEPLOY / "elastic/filebeat.yml").read_text())
    assert filebeat["filebeat.inputs"][0]["topics"] == TOPICS
    collector = yaml.safe_load((DEPLOY / "otel/collector.yaml").read_text())
    assert collector["receivers"]["kafka"]["logs"]["topics"] == TOPICS
    assert collector["receivers"]["kafka"]["header_extraction"]["headers"] == HEADERS
    print("downstream: what is shipped holds together")


def connector(name):
    config = json.loads((DEPLOY / f"splunk/{name}.json").read_text())["config"]
    assert config["topics"].split(",") == TOPICS, f"{name}: {config['topics']}"
    # The converters would parse the record and write it anew, or refuse it.
    assert all(config[f"{part}.converter"].endswith(".StringConverter") for part in ("key", "value", "header"))
    # A record that the service offers under two content types is not twice: it has two sources.
    assert config["splunk.sources"] == config["topics"], f"{name}: {config['splunk.sources']}"
    assert config["splunk.hec.max.retries"] == "-1", "the connector drops what Splunk refuses a few times"
    variables = set(re.findall(r"\$\{env:(\w+)\}", str(config)))
    for worker in ("splunk/worker.properties", "compose/connect.properties"):
        allowed = properties(worker, "=")["config.providers.env.param.allowlist.pattern"]
        assert all(re.fullmatch(allowed, variable) for variable in variables), f"{worker} does not look up {variables}"
    shown = re.findall(r"(SPLUNK_HEC_\w+)=", (ROOT / "docs/downstream.md").read_text())
    assert variables == set(shown), f"docs/downstream.md exports {shown}, {name} wants {variables}"
    assert variables == set(COMPOSE["connect"]["environment"]), f"docker-compose.yml does not give what {name} wants"
    return config


def properties(path, between):
    lines = (DEPLOY / path).read_text().splitlines()
    pairs = (re.split(between, line, maxsplit=1) for line in lines if "=" in line and not line.startswith("#"))
    return dict(pairs)


def logstash():
    """By the grammar of Logstash itself; and what its head asks of logstash.yml is told and given elsewhere too."""
    text, told = (DEPLOY / "elastic/logstash.conf").read_text(), (ROOT / "docs/downstream.md").read_text()
    wanted = re.findall(r"^#   ([a-z_.]+): (\w+)", text, re.M)
    assert len(wanted) == 3, wanted
    for name, value in wanted:
        assert f"\n{name}: {value}\n" in told, f"docs/downstream.md does not say {name}"
        assert COMPOSE["logstash"]["environment"][name.upper().replace(".", "_")] == value, f"docker-compose.yml: {name}"
    tree = Pipeline(text).parse()
    assert [section for section, _ in tree] == ["input", "filter", "output"], tree
    (plugin, settings), = dict(tree)["input"]
    assert plugin == "kafka"
    assert dict(settings)["topics"] == [TOPICS]


def elastic():
    """What compose installs in Elasticsearch is for the data stream that it lets Logstash write to."""
    template = json.loads((DEPLOY / "elastic/template.json").read_text())
    index = COMPOSE["logstash"]["environment"]["O365FEED_INDEX"]
    assert any(fnmatch.fnmatchcase(index, pattern) for pattern in template["index_patterns"]), index
    installed = [path.rsplit("/", 1)[1] for path in COMPOSE["elastic-setup"]["command"] if "/_ingest/pipeline/" in path]
    assert installed == [template["template"]["settings"]["index.default_pipeline"]], installed


def times(pattern, group):
    """What the pattern finds first in each sample is the record's own CreationTime, not one of something in it."""
    found = 0
    for line in samples():
        record = json.loads(line)
        created = record.get("CreationTime") if isinstance(record, dict) else None
        match = re.search(pattern, line)
        if isinstance(created, str) and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", created):
            assert match and match.group(group) == created[:19], f"{pattern} finds {match} in {line[:200]}"
            found += 1
    assert found > 80, f"{pattern} was tried on {found} records only"


def samples():
    for path in sorted((ROOT / "docs/api/samples").glob("*.jsonl")):
        yield from path.read_text(errors="surrogateescape").splitlines()


main()
