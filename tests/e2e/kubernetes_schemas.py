# SPDX-License-Identifier: Apache-2.0
"""Schemas of the Kubernetes kinds that deploy/kubernetes uses: strict subsets, written from the API
references, as JSON Schema. A field that is not listed is refused even where the API has it, so
that a manifest says only what has been looked up; add it here with its type when one is needed.
check(document) gives the errors as texts."""

import jsonschema

QUANTITY = {"anyOf": [{"type": "integer"},
                      {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGT]i?)?$"}]}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"}
PORT_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"}
LABEL_NAME = r"^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = {"type": "string", "pattern": r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"}
LABELS = {"type": "object", "propertyNames": {"pattern": LABEL_NAME},
          "additionalProperties": LABEL_VALUE}
TEXT = {"type": "string", "minLength": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
FLAG = {"type": "boolean"}
PATH = {"type": "string", "pattern": "^/"}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
DURATION = {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}
ANYTHING = {}


def count(low=0, high=2 ** 31 - 1):
    return {"type": "integer", "minimum": low, "maximum": high}


def one_of(*values):
    return {"enum": list(values)}


def many(item, least=1):
    return {"type": "array", "items": item, "minItems": least}


def fields(needed="", **properties):
    """An object with these fields and no other; needed: names that must be there. A field name
    that Python reserves is written with a trailing underscore."""
    return {"type": "object", "additionalProperties": False, "required": needed.split(),
            "properties": {name.rstrip("_"): schema for name, schema in properties.items()}}


def just_one(schema):
    """Exactly one of an object's fields."""
    return dict(schema, minProperties=1, maxProperties=1)


METADATA = fields("name", name=NAME, namespace=NAME, labels=LABELS, annotations=TEXTS)
EXPRESSION = fields("key operator", key={"type": "string", "pattern": LABEL_NAME},
                    operator=one_of("In", "NotIn", "Exists", "DoesNotExist"), values=many(TEXT))
SELECTOR = fields(matchLabels=LABELS, matchExpressions=many(EXPRESSION))
TOLERATION = fields("operator", key=TEXT, operator=one_of("Exists", "Equal"), value=TEXT,
                    effect=one_of("NoSchedule", "PreferNoSchedule", "NoExecute"))
PROBE = fields("httpGet", httpGet=fields("path port", path=PATH, port=PORT_NAME),
               periodSeconds=count(1), failureThreshold=count(1), timeoutSeconds=count(1))
CONTAINER = fields(
    "name image args resources securityContext", name=NAME, image=TEXT, command=many(TEXT),
    args=many(TEXT),
    env=many(fields("name", name=TEXT, value={"type": "string"}, valueFrom=fields(
        "fieldRef", fieldRef=fields("fieldPath", fieldPath=one_of(
            "status.podIP", "metadata.name", "metadata.namespace", "spec.nodeName"))))),
    ports=many(fields("name containerPort", name=PORT_NAME, containerPort=PORT)),
    startupProbe=PROBE, readinessProbe=PROBE, livenessProbe=PROBE,
    resources=fields("requests limits", **{kind: {
        "type": "object", "propertyNames": {"enum": ["cpu", "memory", "nvidia.com/gpu"]},
        "additionalProperties": QUANTITY} for kind in ("requests", "limits")}),
    securityContext=fields(
        "allowPrivilegeEscalation readOnlyRootFilesystem capabilities",
        allowPrivilegeEscalation=FLAG, readOnlyRootFilesystem=FLAG,
        capabilities=fields("drop", drop=many(TEXT))),
    volumeMounts=many(fields("name mountPath", name=NAME, mountPath=PATH, readOnly=FLAG)))
VOLUME = fields(
    "name", name=NAME, configMap=fields("name", name=NAME),
    emptyDir=fields(medium=one_of("Memory"), sizeLimit=QUANTITY),
    persistentVolumeClaim=fields("claimName", claimName=NAME, readOnly=FLAG),
    secret=fields("secretName", secretName=NAME, defaultMode=count(0, 0o777)))
POD = fields(
    "containers serviceAccountName automountServiceAccountToken securityContext",
    serviceAccountName=NAME, automountServiceAccountToken=FLAG, enableServiceLinks=FLAG,
    terminationGracePeriodSeconds=count(), restartPolicy=one_of("Always", "OnFailure", "Never"),
    nodeSelector=LABELS, tolerations=many(TOLERATION),
    securityContext=fields(
        "runAsNonRoot seccompProfile", runAsNonRoot=FLAG, runAsUser=count(1), runAsGroup=count(1),
        fsGroup=count(1), fsGroupChangePolicy=one_of("OnRootMismatch", "Always"),
        seccompProfile=fields("type", type=one_of("RuntimeDefault"))),
    containers=many(CONTAINER), volumes=many(VOLUME))
TEMPLATE = fields("metadata spec", metadata=fields("labels", labels=LABELS, annotations=TEXTS),
                  spec=POD)
CLAIM = fields("accessModes resources",
               accessModes=many(one_of("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany",
                                       "ReadWriteOncePod")),
               storageClassName=NAME,
               resources=fields("requests", requests=fields("storage", storage=QUANTITY)))
JOB = fields(
    "template", template=TEMPLATE, backoffLimit=count(), parallelism=count(1),
    completions=count(1), completionMode=one_of("Indexed", "NonIndexed"),
    podFailurePolicy=fields("rules", rules=many(fields(
        "action", action=one_of("FailJob", "Ignore", "Count"),
        onExitCodes=fields("operator values", operator=one_of("In", "NotIn"),
                           values=many(count(1, 255))),
        onPodConditions=many(fields("type", type=TEXT))))))
PEER = fields(podSelector=SELECTOR, namespaceSelector=SELECTOR)
OPEN_PORT = fields("protocol port", protocol=one_of("TCP", "UDP"), port=PORT, endPort=PORT)
ISSUER_REF = fields("name kind", name=NAME, kind=one_of("Issuer", "ClusterIssuer"))
RULE_GROUP = fields("name rules", name=TEXT, rules=many(fields(
    "alert expr labels annotations", alert=TEXT, expr=TEXT, labels=TEXTS, annotations=TEXTS,
    **{"for": DURATION})))


def spec(schema, **others):
    """A kind whose fields are all below spec."""
    return fields("apiVersion kind metadata spec", apiVersion=ANYTHING, kind=ANYTHING,
                  metadata=METADATA, spec=schema, **others)


def workload(needed, **properties):
    return spec(fields("selector template " + needed, selector=SELECTOR, template=TEMPLATE,
                       **properties))


KINDS = {
    ("v1", "Namespace"): fields("metadata", apiVersion=ANYTHING, kind=ANYTHING, metadata=METADATA),
    ("v1", "ServiceAccount"): fields("metadata", apiVersion=ANYTHING, kind=ANYTHING,
                                     metadata=METADATA, automountServiceAccountToken=FLAG),
    ("v1", "ConfigMap"): fields("metadata data", apiVersion=ANYTHING, kind=ANYTHING,
                                metadata=METADATA, data=TEXTS),
    ("v1", "PersistentVolumeClaim"): spec(CLAIM),
    ("v1", "Service"): spec(fields(
        "selector ports clusterIP", clusterIP=one_of("None"), publishNotReadyAddresses=FLAG,
        selector=LABELS,
        ports=many(fields("name port targetPort", name=PORT_NAME, port=PORT,
                          targetPort=PORT_NAME)))),
    ("apps/v1", "StatefulSet"): workload(
        "serviceName", serviceName=NAME, replicas=count(1),
        podManagementPolicy=one_of("Parallel", "OrderedReady"),
        updateStrategy=fields("type", type=one_of("OnDelete", "RollingUpdate")),
        volumeClaimTemplates=many(fields("metadata spec", metadata=METADATA, spec=CLAIM))),
    ("apps/v1", "DaemonSet"): workload(
        "", updateStrategy=fields("type", type=one_of("OnDelete", "RollingUpdate"))),
    ("batch/v1", "Job"): spec(JOB),
    ("policy/v1", "PodDisruptionBudget"): spec(fields(
        "selector maxUnavailable", selector=SELECTOR, maxUnavailable=count(1),
        unhealthyPodEvictionPolicy=one_of("AlwaysAllow", "IfHealthyBudget"))),
    ("networking.k8s.io/v1", "NetworkPolicy"): spec(fields(
        "podSelector policyTypes", podSelector=SELECTOR,
        policyTypes=many(one_of("Ingress", "Egress")),
        ingress=many(fields("from", from_=many(PEER), ports=many(OPEN_PORT))),
        egress=many(fields("to", to=many(PEER), ports=many(OPEN_PORT))))),
    ("monitoring.coreos.com/v1", "PodMonitor"): spec(fields(
        "selector podMetricsEndpoints", selector=SELECTOR, podTargetLabels=many(TEXT),
        podMetricsEndpoints=many(fields(
            "path", port=PORT_NAME, path=PATH, interval=DURATION, scrapeTimeout=DURATION,
            relabelings=many(fields("sourceLabels regex action", sourceLabels=many(TEXT),
                                    regex=TEXT, action=one_of("keep", "drop"))))))),
    ("monitoring.coreos.com/v1", "PrometheusRule"): spec(fields("groups",
                                                                groups=many(RULE_GROUP))),
    ("cert-manager.io/v1", "Issuer"): spec(just_one(fields(
        selfSigned=fields(), ca=fields("secretName", secretName=NAME)))),
    ("cert-manager.io/v1", "Certificate"): spec(fields(
        "secretName issuerRef privateKey", secretName=NAME, issuerRef=ISSUER_REF, isCA=FLAG,
        commonName=TEXT, duration=DURATION, renewBefore=DURATION, dnsNames=many(TEXT),
        usages=many(one_of("server auth", "client auth")),
        privateKey=fields("algorithm size", algorithm=one_of("ECDSA", "RSA"), size=count(),
                          rotationPolicy=one_of("Always", "Never")))),
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): spec(fields(
        "replicatedJobs", suspend=FLAG, ttlSecondsAfterFinished=count(),
        coordinator=fields("replicatedJob", replicatedJob=NAME, jobIndex=count(),
                           podIndex=count()),
        network=fields(enableDNSHostnames=FLAG, publishNotReadyAddresses=FLAG, subdomain=NAME),
        successPolicy=fields("operator", operator=one_of("All", "Any"),
                             targetReplicatedJobs=many(NAME)),
        failurePolicy=fields("maxRestarts", maxRestarts=count(), rules=many(fields(
            "name action", name=TEXT, onJobFailureReasons=many(TEXT),
            action=one_of("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")))),
        replicatedJobs=many(fields(
            "name template", name=NAME, replicas=count(1), template=fields("spec", spec=JOB),
            dependsOn=many(fields("name status", name=NAME,
                                  status=one_of("Ready", "Complete"))))))),
    ("kueue.x-k8s.io/v1beta2", "Topology"): spec(fields(
        "levels", levels=many(fields("nodeLabel", nodeLabel=TEXT)))),
    ("kueue.x-k8s.io/v1beta2", "ResourceFlavor"): spec(fields(
        nodeLabels=LABELS, topologyName=NAME)),
    ("kueue.x-k8s.io/v1beta2", "ClusterQueue"): spec(fields(
        "resourceGroups", namespaceSelector=SELECTOR,
        queueingStrategy=one_of("BestEffortFIFO", "StrictFIFO"),
        resourceGroups=many(fields(
            "coveredResources flavors", coveredResources=many(TEXT),
            flavors=many(fields("name resources", name=NAME, resources=many(fields(
                "name nominalQuota", name=TEXT, nominalQuota=QUANTITY)))))))),
    ("kueue.x-k8s.io/v1beta2", "LocalQueue"): spec(fields("clusterQueue", clusterQueue=NAME)),
}


def check(document):
    """Errors of one document against the schema of its kind, with the path of each."""
    key = (document.get("apiVersion"), document.get("kind"))
    if key not in KINDS:
        return ["%s %s: a kind without a schema" % key]
    where = "%s %s" % (key[1], document.get("metadata", {}).get("name"))
    return ["%s: %s: %s" % (where, "/".join(map(str, error.absolute_path)), error.message[:300])
            for error in jsonschema.Draft7Validator(KINDS[key]).iter_errors(document)]
