"""Checks Kubernetes manifests without a cluster: manifests.py DEFINITION... -- FILE...

Core kinds are checked against the strict schemas of the oldest and the newest version named below, kinds of operators against
their definitions (CRD files), with unknown fields refused, which an API server would prune. Pods must satisfy the restricted
profile of Pod Security. Every fault is told; any fault ends with 1.
"""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

VERSIONS = ["1.30", kubernetes_validate.latest_version()]


class Loader(yaml.SafeLoader):
    """YAML in which no key stands twice."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{', '.join(map(str, twice))} twice at {node.start_mark}")
        return super().construct_mapping(node, deep)


def closed(schema):
    """The schema of a definition as JSON Schema that refuses what is not in it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and isinstance(schema.get("type"), str):
        open_to_all = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
        if not open_to_all:
            made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    return made


def definitions(files):
    """By API version and kind, the schema of each custom kind."""
    found = {}
    for file in files:
        spec = yaml.safe_load(pathlib.Path(file).read_text())["spec"]
        for version in spec["versions"]:
            schema = closed(version["schema"]["openAPIV3Schema"])
            # The API server's own part, which no definition spells out.
            schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def pod_of(manifest):
    return manifest.get("spec", {}).get("template", {}).get("spec")


def restricted(pod):
    """What keeps a pod from the restricted profile."""
    whole = pod.get("securityContext") or {}
    for container in pod.get("initContainers", []) + pod["containers"]:
        own = container.get("securityContext") or {}
        name = container["name"]
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation is not false"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: keeps capabilities"
        if own.get("privileged"):
            yield f"{name}: is privileged"
        if own.get("runAsNonRoot", whole.get("runAsNonRoot")) is not True:
            yield f"{name}: may run as root"
        if own.get("runAsUser", whole.get("runAsUser")) == 0:
            yield f"{name}: runs as root"
        profile = (own.get("seccompProfile") or whole.get("seccompProfile") or {}).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: has no seccomp profile"
    allowed = {"configMap", "projected", "secret", "emptyDir", "downwardAPI", "csi", "persistentVolumeClaim", "ephemeral"}
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= allowed:
            yield f"volume {volume['name']}: is of a kind that is not allowed"
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(shared):
            yield f"{shared} is set"


def where(fault):
    return f"{'.'.join(map(str, fault.absolute_path)) or 'top'}: {fault.message}"


def faults(manifest, known):
    kind = (manifest["apiVersion"], manifest["kind"])
    if kind in known:
        for fault in jsonschema.Draft7Validator(known[kind]).iter_errors(manifest):
            yield where(fault)
    else:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as fault:
                yield f"Kubernetes {version}: {where(fault)}"
            except kubernetes_validate.SchemaNotFoundError as fault:
                yield fault.message
    if pod := pod_of(manifest):
        yield from restricted(pod)


def main(arguments):
    at = arguments.index("--")
    known, files = definitions(arguments[:at]), arguments[at + 1 :]
    told = checked = 0
    for file in files:
        manifests = [manifest for manifest in yaml.load_all(pathlib.Path(file).read_text(), Loader) if manifest]
        if not manifests:
            print(f"{file}: has no manifest")
            told += 1
        for manifest in manifests:
            checked += 1
            for fault in faults(manifest, known):
                told += 1
                print(f"{file}: {manifest['kind']} {manifest['metadata']['name']}: {fault}")
    print(f"{checked} manifests checked for Kubernetes {' and '.join(VERSIONS)}, {told} faults")
    return 1 if told or not checked else 0


sys.exit(main(sys.argv[1:]))
