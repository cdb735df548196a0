# SPDX-License-Identifier: Apache-2.0
"""The manifests of deploy/kubernetes, as `kubectl kustomize` builds them: every document fits a
strict schema of its kind, every pod the restricted profile, every name that one says of another is
there, and the network policies let through what a training run needs and nothing else. Every
container's arguments are parsed by the real programs, every job file is valid and fits its number
of stages, and a pod's last seconds are enough for a save. Then the pods of the CPU demo run as
processes with the arguments of their containers: each probe is asked as the kubelet would ask it,
and the demo's Job trains to its end."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import unittest
import urllib.error
import urllib.request

import yaml

import cluster as clusters
import kubernetes_schemas
from cluster import Daemon

# What is built, and with which components beside its own.
BUILDS = {
    "overlays/cpu-demo": (),
    "overlays/gpu": ("monitoring",),
    "overlays/gpu-stages": ("monitoring", "tls"),
    "one-shot/jobset": (),
    "one-shot/kueue": (),
}
OF_THE_USER = {"millrace-data"}  # a claim that one-shot/jobset asks its user to make
PART = "app.kubernetes.io/component"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
USER = 65532


class Pod:
    """A pod template, by what made it."""

    def __init__(self, owner, template, replicas=1, extra_claims=()):
        self.name = "%s %s" % (owner["kind"], owner["metadata"]["name"])
        self.labels = template["metadata"]["labels"]
        self.spec = template["spec"]
        self.container = template["spec"]["containers"][0]
        self.part = self.labels[PART]
        self.replicas = replicas
        self.volumes = {volume["name"]: volume for volume in self.spec.get("volumes", ())}
        self.extra_claims = set(extra_claims)

    def ports(self):
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", ())}


class Build:
    """All documents of one kustomization."""

    def __init__(self, documents):
        self.documents = documents

    def of_kind(self, *kinds):
        return [document for document in self.documents if document["kind"] in kinds]

    def names(self, kind):
        return {document["metadata"]["name"] for document in self.of_kind(kind)}

    def pods(self):
        for owner in self.of_kind("StatefulSet", "DaemonSet", "Job"):
            spec = owner["spec"]
            claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())]
            yield Pod(owner, spec["template"], spec.get("replicas", 1), claims)
        for owner in self.of_kind("JobSet"):
            for job in owner["spec"]["replicatedJobs"]:
                spec = job["template"]["spec"]
                yield Pod(owner, spec["template"], spec.get("parallelism", 1))

    def job_files(self):
        """Job files in config maps: name, text."""
        for document in self.of_kind("ConfigMap"):
            for name, text in document["data"].items():
                if name.endswith(".yaml"):
                    yield document["metadata"]["name"], text


def kustomize(folder):
    run = subprocess.run(["kubectl", "kustomize", folder], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise AssertionError("kubectl kustomize %s: %s" % (folder, run.stderr))
    return Build(list(yaml.safe_load_all(run.stdout)))


def build_all():
    """Every kustomization of BUILDS, in a copy of the tree: what kustomize reads must lie below
    its own folder, and Bazel's files are links."""
    if shutil.which("kubectl") is None:
        raise unittest.SkipTest("kubectl is not installed")
    version = json.loads(subprocess.run(["kubectl", "version", "--client", "-o", "json"],
                                        stdout=subprocess.PIPE, text=True).stdout)
    if int(version.get("kustomizeVersion", "v2").lstrip("v").split(".")[0]) < 5:
        raise unittest.SkipTest("kubectl's kustomize is older than version 5")
    top = clusters.temporary_folder("manifests")
    for name in ("kubernetes", "grafana"):
        shutil.copytree(os.path.join(clusters.ROOT, "deploy", name), os.path.join(top, name))
    builds = {}
    for path, components in BUILDS.items():
        folder = os.path.join(top, "kubernetes", "built", path)
        os.makedirs(folder)
        with open(os.path.join(folder, "kustomization.yaml"), "w") as file:
            yaml.safe_dump({
                "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
                "namespace": "millrace", "resources": ["../../../" + path],
                "components": ["../../../components/" + name for name in components]}, file)
        builds[path] = kustomize(folder)
    return builds


def selects(selector, labels):
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", ()):
        if one["operator"] != "In":
            raise AssertionError("operator %s: teach it to the test" % one["operator"])
        if labels.get(one["key"]) not in one["values"]:
            return False
    return True


class Network:
    """What the network policies of a build let through. A peer is (namespace, labels)."""

    def __init__(self, build):
        self.policies = [document["spec"] for document in build.of_kind("NetworkPolicy")]

    def allows(self, source, target, port):
        return (self.passes("Egress", source, target, port)
                and self.passes("Ingress", target, source, port))

    def passes(self, direction, subject, other, port):
        if subject[0] != "millrace":
            return True  # other namespaces' policies are theirs
        applied = [policy for policy in self.policies if direction in policy["policyTypes"]
                   and selects(policy["podSelector"], subject[1])]
        rules = [rule for policy in applied for rule in policy.get(direction.lower(), ())]
        return not applied or any(self.matches(rule, other, port) for rule in rules)

    def matches(self, rule, other, port):
        peers = rule.get("from", rule.get("to"))
        ports = rule.get("ports")
        return (any(self.is_peer(peer, other) for peer in peers)
                and (ports is None or any(one["port"] <= port <= one.get("endPort", one["port"])
                                          for one in ports)))

    def is_peer(self, peer, other):
        if "namespaceSelector" in peer:
            labels = {"kubernetes.io/metadata.name": other[0]}
            if not selects(peer["namespaceSelector"], labels):
                return False
        elif other[0] != "millrace":
            return False
        return selects(peer.get("podSelector", {}), other[1])


class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.builds = build_all()

    def each_pod(self):
        for path, build in self.builds.items():
            for pod in build.pods():
                with self.subTest(build=path, pod=pod.name, part=pod.part):
                    yield build, pod

    def test_every_document_fits_its_schema(self):
        for path, build in self.builds.items():
            self.assertGreater(len(build.documents), 8, path)
            for document in build.documents:
                self.assertEqual(kubernetes_schemas.check(document), [], path)

    def test_the_schemas_refuse_what_the_api_would(self):
        pod = next(iter(self.builds["overlays/cpu-demo"].of_kind("StatefulSet")))
        for change in (lambda d: d["spec"].update(replica=2),
                       lambda d: d["spec"]["template"]["spec"]["containers"][0].pop("image"),
                       lambda d: d["metadata"].update(name="Upper_Case"),
                       lambda d: d["spec"].update(replicas="2")):
            broken = json.loads(json.dumps(pod))
            change(broken)
            self.assertNotEqual(kubernetes_schemas.check(broken), [])

    def test_the_namespace_enforces_the_restricted_profile(self):
        for path, build in self.builds.items():
            labels = build.of_kind("Namespace")[0]["metadata"]["labels"]
            self.assertEqual(labels["pod-security.kubernetes.io/enforce"], "restricted", path)
            for document in build.documents:
                if document["kind"] not in ("Namespace", "Topology", "ResourceFlavor",
                                            "ClusterQueue"):
                    self.assertEqual(document["metadata"].get("namespace"), "millrace", path)

    def test_every_pod_fits_the_restricted_profile(self):
        for _, pod in self.each_pod():
            security = pod.spec["securityContext"]
            self.assertTrue(security["runAsNonRoot"])
            self.assertEqual((security["runAsUser"], security["runAsGroup"]), (USER, USER))
            self.assertEqual(security["seccompProfile"], {"type": "RuntimeDefault"})
            own = pod.container["securityContext"]
            self.assertFalse(own["allowPrivilegeEscalation"])
            self.assertTrue(own["readOnlyRootFilesystem"])
            self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
            self.assertFalse(pod.spec["automountServiceAccountToken"])
            self.assertEqual(len(pod.spec["containers"]), 1)
            for key in ("hostNetwork", "hostPID", "hostIPC", "initContainers"):
                self.assertNotIn(key, pod.spec)
            for volume in pod.volumes.values():
                self.assertNotIn("hostPath", volume)

    def test_every_volume_is_there_and_used(self):
        for build, pod in self.each_pod():
            mounted = {mount["name"] for mount in pod.container.get("volumeMounts", ())}
            self.assertEqual(mounted, set(pod.volumes) | pod.extra_claims)
            secrets = {one["spec"]["secretName"] for one in build.of_kind("Certificate")}
            for volume in pod.volumes.values():
                if "persistentVolumeClaim" in volume:
                    self.assertIn(volume["persistentVolumeClaim"]["claimName"],
                                  build.names("PersistentVolumeClaim") | OF_THE_USER)
                if "configMap" in volume:
                    self.assertIn(volume["configMap"]["name"], build.names("ConfigMap"))
                if "secret" in volume:
                    self.assertIn(volume["secret"]["secretName"], secrets)

    def test_the_checkpoints_lie_under_the_same_path_everywhere(self):
        for _, pod in self.each_pod():
            if pod.part == "client":
                continue
            mounts = {mount["name"]: mount["mountPath"]
                      for mount in pod.container["volumeMounts"]}
            self.assertEqual(mounts["checkpoints"], "/checkpoints")

    def test_selectors_find_their_pods_and_ports(self):
        for path, build in self.builds.items():
            pods = list(build.pods())
            for owner in build.of_kind("StatefulSet", "DaemonSet"):
                self.assertTrue(selects(owner["spec"]["selector"],
                                        owner["spec"]["template"]["metadata"]["labels"]), path)
                if owner["kind"] == "StatefulSet":
                    self.assertIn(owner["spec"]["serviceName"], build.names("Service"))
            for kind in ("PodDisruptionBudget", "PodMonitor"):
                for document in build.of_kind(kind):
                    found = [pod for pod in pods if selects(document["spec"]["selector"],
                                                            pod.labels)]
                    self.assertTrue(found, document["metadata"]["name"])
                    for endpoint in document["spec"].get("podMetricsEndpoints", ()):
                        for pod in found:
                            self.check_scraped(endpoint, pod)
            for service in build.of_kind("Service"):
                found = [pod for pod in pods
                         if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
                self.assertTrue(found, service["metadata"]["name"])
                for port in service["spec"]["ports"]:
                    for pod in found:
                        self.assertEqual(pod.ports().get(port["targetPort"]), port["port"])

    def check_scraped(self, endpoint, pod):
        """The ports that Prometheus keeps: the pod's own, and one for each GPU of a node."""
        keep = endpoint["relabelings"][0]["regex"]
        kept = sorted(port for name, port in pod.ports().items() if re.fullmatch(keep, name))
        gpus = pod.container["resources"]["limits"].get("nvidia.com/gpu", 1)
        stages = gpus if pod.name.startswith("DaemonSet") else 0
        first = pod.ports()["status"]
        self.assertEqual(kept, list(range(first, first + 1 + stages)))

    def test_probes_ask_the_status_port(self):
        for _, pod in self.each_pod():
            if pod.part == "client":
                continue
            paths = [pod.container[probe]["httpGet"]["path"] for probe in PROBES]
            self.assertEqual(paths, ["/startupz", "/readyz", "/livez"])
            for probe in PROBES:
                self.assertEqual(pod.container[probe]["httpGet"]["port"], "status")
            listens = {option: value.rsplit(":", 1)[-1] for option, value in options_of(pod)
                       if option in ("--listen", "--status")}
            self.assertEqual({"--listen": str(pod.ports()["rpc"]),
                              "--status": str(pod.ports()["status"])}, listens)

    def test_a_pods_last_seconds_are_enough_for_a_save(self):
        with open(os.path.join(clusters.ROOT, "daemon/base/limits.h")) as file:
            limits = dict(re.findall(r"(MR_\w+_MS) = (\d+)", file.read()))
        save = (int(limits["MR_SAVE_TIMEOUT_MS"]) + int(limits["MR_STEP_WAIT_TIMEOUT_MS"])
                + int(limits["MR_SHUTDOWN_TIMEOUT_MS"])) / 1000
        for _, pod in self.each_pod():
            least = {"stage": save, "coordinator": 2 * int(limits["MR_SHUTDOWN_TIMEOUT_MS"]) / 1000,
                     "client": 0}[pod.part]
            self.assertGreaterEqual(pod.spec.get("terminationGracePeriodSeconds", 30), least)

    def test_the_network_lets_through_what_a_run_needs_and_nothing_else(self):
        for path, build in self.builds.items():
            network = Network(build)
            labels = {pod.part: ("millrace", pod.labels) for pod in build.pods()}
            labels.setdefault("client", ("millrace", {PART: "client"}))
            stranger = ("default", {PART: "stage"})
            labels.update(stranger=stranger, prometheus=("monitoring", {}),
                          bystander=("millrace", {}),
                          dns=("kube-system", {"k8s-app": "kube-dns"}))
            needed = [("stage", "coordinator", 9700), ("client", "coordinator", 9700),
                      ("client", "stage", 9701), ("stage", "stage", 9701),
                      ("prometheus", "coordinator", 9780), ("prometheus", "stage", 9781),
                      ("stage", "dns", 53), ("client", "dns", 53), ("coordinator", "dns", 53)]
            refused = [("client", "coordinator", 9780), ("stage", "coordinator", 9780),
                       ("client", "stage", 9781), ("stranger", "coordinator", 9700),
                       ("stranger", "stage", 9701), ("prometheus", "coordinator", 9700),
                       ("bystander", "coordinator", 9700), ("coordinator", "stage", 9701),
                       ("stage", "stranger", 443), ("client", "stranger", 443)]
            for source, target, port in needed:
                self.assertTrue(network.allows(labels[source], labels[target], port),
                                "%s: %s to %s:%d" % (path, source, target, port))
            for source, target, port in refused:
                self.assertFalse(network.allows(labels[source], labels[target], port),
                                 "%s: %s to %s:%d" % (path, source, target, port))
            # NCCL's own ports, on GPUs only.
            self.assertEqual(network.allows(labels["stage"], labels["stage"], 40000),
                             "gpu" in path, path)

    def test_one_shot_runs_name_their_coordinator_and_their_order(self):
        for path in ("one-shot/jobset", "one-shot/kueue"):
            job_set = self.builds[path].of_kind("JobSet")[0]
            name = job_set["metadata"]["name"]
            jobs = job_set["spec"]["replicatedJobs"]
            self.assertEqual([job["name"] for job in jobs], ["coordinator", "stage", "client"])
            self.assertEqual([job.get("dependsOn", [{}])[0].get("name") for job in jobs],
                             [None, "coordinator", "stage"])
            address = "%s-coordinator-0-0.%s:9700" % (name, name)
            for pod in self.builds[path].pods():
                named = [value for option, value in options_of(pod)
                         if option in ("--coordinator", "--server")]
                self.assertIn(named, ([], [address]))
        waits = self.builds["one-shot/kueue"].of_kind("JobSet")[0]
        self.assertTrue(waits["spec"]["suspend"])
        self.assertIn(waits["metadata"]["labels"]["kueue.x-k8s.io/queue-name"],
                      self.builds["one-shot/kueue"].names("LocalQueue"))

    def test_services_are_called_by_their_names(self):
        for build, pod in self.each_pod():
            for option, value in options_of(pod):
                if option in ("--coordinator", "--server", "--advertise"):
                    host = re.sub(r"^\$\(POD_NAME\)\.", "", value.rsplit(":", 1)[0])
                    if not build.of_kind("JobSet"):
                        self.assertIn(host.split(".")[0], build.names("Service"))
                        self.assertIn(host.split(".")[1:], ([], ["millrace", "svc"]))

    def test_certificates_cover_the_names_that_are_used(self):
        build = self.builds["overlays/gpu-stages"]
        names = {one["spec"]["secretName"]: one["spec"].get("dnsNames", ())
                 for one in build.of_kind("Certificate")}
        for pod in build.pods():
            options = dict(options_of(pod))
            self.assertEqual(options["--tls-ca"], "/tls/ca.crt")
            secret = pod.volumes["tls"]["secret"]["secretName"]
            if pod.part == "stage":
                host = options["--advertise"].rsplit(":", 1)[0].replace("$(POD_NAME)", "*")
                self.assertIn(host, names[secret])
                coordinator = options["--coordinator"].rsplit(":", 1)[0]
                self.assertIn(coordinator, names["millrace-coordinator-tls"])

    def test_the_programs_parse_every_containers_arguments(self):
        for _, pod in self.each_pod():
            arguments = [argument.replace("$(POD_IP)", "127.0.0.1").replace("$(POD_NAME)", "pod-0")
                         for argument in pod.container["args"]]
            if pod.container.get("command") == ["/millrace/bin/millrace"]:
                run = subprocess.run([clusters.MILLRACE] + arguments + ["--no-such-option"],
                                     stderr=subprocess.PIPE, text=True)
                self.assertEqual(run.returncode, 2)
                self.assertIn("--no-such-option", run.stderr)
                continue
            self.assertNotIn("command", pod.container)  # the image's own entry point
            if arguments[0] == "node" and not has_node_role():
                continue
            run = subprocess.run([clusters.MILLRACED] + arguments + ["--log-level=unheard"],
                                 stderr=subprocess.PIPE, text=True)
            self.assertEqual(run.returncode, 64, run.stderr)
            self.assertIn("--log-level is unheard", run.stderr)

    def test_job_files_are_valid_and_fit_the_stages(self):
        found = 0
        for path, build in self.builds.items():
            stages = sum(pod.replicas for pod in build.pods() if pod.part == "stage")
            for name, text in build.job_files():
                found += 1
                folder = clusters.temporary_folder("job")
                job = os.path.join(folder, "job.yaml")
                with open(job, "w") as file:
                    file.write(text)
                clusters.run_client(["job", "validate", job], folder).check()
                plan = clusters.run_client(["-o", "json", "job", "plan", job], folder).json()
                self.assertEqual(plan["world_size"], stages, "%s %s" % (path, name))
                self.assertTrue(yaml.safe_load(text)["checkpoint"]["dir"]
                                .startswith("/checkpoints/"))
        self.assertEqual(found, 3)


def options_of(pod):
    """The options of a container, as (name, value)."""
    return [argument.split("=", 1) for argument in pod.container["args"]
            if argument.startswith("--") and "=" in argument]


def has_node_role():
    text = subprocess.run([clusters.MILLRACED, "--help"], stdout=subprocess.PIPE, text=True).stdout
    return "millraced node" in text


def adapt(pod, **values):
    """A container's arguments with other values of some options (underscores for dashes)."""
    adapted = []
    for argument in pod.container["args"]:
        name = argument.split("=")[0].lstrip("-").replace("-", "_")
        adapted.append("--%s=%s" % (argument[2:].split("=")[0], values[name])
                       if argument.startswith("--") and name in values else argument)
    return adapted


def ask(address, path):
    try:
        with urllib.request.urlopen("http://%s%s" % (address, path), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


class PodsAsProcesses(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.builds = build_all()

    def setUp(self):
        self.folder = clusters.temporary_folder("pods")

    def start(self, pod, message, name, **values):
        daemon = Daemon(self.folder, name, adapt(pod, listen="127.0.0.1:0", status="127.0.0.1:0",
                                                 **values))
        self.addCleanup(self.end, daemon)
        ready = daemon.wait_message(message)
        return daemon, ready.get("address"), ready["status_address"]

    def end(self, daemon):
        if not daemon.process.stderr.closed:
            print("---- %s\n%s" % (daemon.name, "".join(daemon.lines[-20:])))
            daemon.stop(signal.SIGKILL)

    def start_coordinator(self, pods):
        pod = next(pod for pod in pods if pod.part == "coordinator")
        daemon, address, status = self.start(pod, "coordinator ready", "coordinator",
                                             state=os.path.join(self.folder, "state"))
        self.check_probes(pod, status)
        return daemon, address

    def check_probes(self, pod, status):
        """As the kubelet does: a 503 is asked again, startup first, readiness then."""
        pause = threading.Event()
        for probe in PROBES:
            path = pod.container[probe]["httpGet"]["path"]
            for _ in range(10 * clusters.START_SECONDS):
                answer = ask(status, path)
                if answer != 503:
                    break
                pause.wait(0.1)
            self.assertEqual(answer, 200, path)
        self.assertEqual(ask(status, "/metrics"), 200)
        self.assertEqual(ask(status, "/no-such-path"), 404)

    def write_job(self, build, steps=100):
        """The demo's job file with this machine's folders."""
        text = dict(build.job_files())["millrace-demo"]
        for there, here in (("total_steps: 100,", "total_steps: %d," % steps),
                            ("/checkpoints/", self.folder + "/"),
                            ("/millrace/README.md", os.path.join(clusters.ROOT, "README.md"))):
            self.assertIn(there, text)
            text = text.replace(there, here)
        path = os.path.join(self.folder, "job.yaml")
        with open(path, "w") as file:
            file.write(text)
        return path

    def start_stage(self, pods, address, number):
        pod = next(pod for pod in pods if pod.part == "stage")
        daemon, _, status = self.start(pod, "stage ready", "stage-%d" % number,
                                       coordinator=address)
        daemon.wait_message("attached")
        self.check_probes(pod, status)
        return daemon

    def start_demo(self, steps):
        """The daemons of the CPU demo, coordinator first, and its client's arguments."""
        build = self.builds["overlays/cpu-demo"]
        pods = list(build.pods())
        coordinator, address = self.start_coordinator(pods)
        stages = [self.start_stage(pods, address, number) for number in range(2)]
        client = next(pod for pod in pods if pod.part == "client")
        job = self.write_job(build, steps)
        arguments = [job if argument == "/job/job.yaml" else argument
                     for argument in adapt(client, server=address)]
        return pods, address, [coordinator] + stages, arguments

    def test_the_demo_trains_to_its_end(self):
        _, _, daemons, arguments = self.start_demo(100)
        run = clusters.run_client(arguments, self.folder).check()
        self.assertEqual(len(run.steps()), 100)
        self.assertLess(run.steps()[-1]["loss"], run.steps()[0]["loss"])
        self.assertTrue(os.path.exists(os.path.join(self.folder,
                                                    "demo/step-000000000100/manifest.json")))
        # The pod again, as after an eviction at the very end: nothing is left to do.
        clusters.run_client(arguments, self.folder).check()
        for daemon in reversed(daemons):
            self.assertEqual(daemon.stop(signal.SIGTERM), 0)

    def test_a_stage_that_is_asked_to_end_saves_its_job_first(self):
        steps = 1000
        pods, address, daemons, arguments = self.start_demo(steps)
        client = subprocess.Popen([clusters.MILLRACE] + arguments, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                  cwd=self.folder)
        self.addCleanup(client.kill)
        self.assertEqual(json.loads(client.stdout.readline())["step"], 1)
        # As the kubelet does, with the pod's terminationGracePeriodSeconds to come.
        self.assertEqual(daemons[2].stop(signal.SIGTERM, clusters.CLIENT_SECONDS), 0)
        daemons[2].wait_message("stopping once the job is saved")
        _, said = client.communicate(timeout=clusters.CLIENT_SECONDS)
        self.assertEqual(client.returncode, 8, said)
        saved = int(re.search(r"was drained; saved as step-0*(\d+)", said).group(1))
        self.assertLess(saved, steps)
        self.start_stage(pods, address, 2)
        again = clusters.run_client(arguments, self.folder).check()
        self.assertEqual([again.steps()[0]["step"], again.steps()[-1]["step"]], [saved + 1, steps])
        self.assertEqual(daemons[1].stop(signal.SIGTERM), 0)

    def test_a_stage_is_not_ready_before_it_has_met_the_coordinator(self):
        stage = next(pod for pod in self.builds["overlays/cpu-demo"].pods()
                     if pod.part == "stage")
        daemon, _, status = self.start(stage, "stage ready", "stage", coordinator="127.0.0.1:9")
        self.assertEqual([ask(status, path) for path in ("/startupz", "/livez", "/readyz")],
                         [200, 200, 503])
        self.assertEqual(daemon.stop(signal.SIGTERM), 0)

    def test_a_node_answers_its_probes_and_saves_before_it_ends(self):
        if not has_node_role():
            self.skipTest("this millraced has no role node")
        pods = list(self.builds["overlays/gpu"].pods())
        coordinator, address = self.start_coordinator(pods)
        node = next(pod for pod in pods if pod.part == "stage")
        daemon, _, status = self.start(node, "node ready", "node", coordinator=address,
                                       devices="cpu:2")
        self.check_probes(node, status)
        job = self.write_job(self.builds["overlays/cpu-demo"], 1000)
        client = subprocess.Popen(
            [clusters.MILLRACE, "--server", address, "-o", "jsonl", "train", job],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            cwd=self.folder)
        self.addCleanup(client.kill)
        self.assertEqual(json.loads(client.stdout.readline())["step"], 1)
        self.assertEqual(daemon.stop(signal.SIGTERM, clusters.CLIENT_SECONDS), 0)
        _, said = client.communicate(timeout=clusters.CLIENT_SECONDS)
        self.assertEqual(client.returncode, 8, said)
        self.assertRegex(said, "was drained; saved as step-0*[1-9]")
        self.assertEqual(coordinator.stop(signal.SIGTERM), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
