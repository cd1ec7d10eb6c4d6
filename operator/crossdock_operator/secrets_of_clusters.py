"""The Secrets that a cluster's workers have: signing keys, and certificates of an own authority."""

import base64
import json
import secrets
import time
from dataclasses import asdict, dataclass

import structlog

from crossdock_operator.errors import Refused, Stale
from crossdock_operator.kinds import SECRET, Object
from crossdock_operator.kube import Kube
from crossdock_operator.plan import keys, names, trust
from crossdock_operator.records import RENEW_AT, Cluster
from crossdock_operator.store import Store

_AUTHORITIES = "authorities"
"""Field of the Secret with the authorities: JSON; no pod has it."""

log = structlog.get_logger()


@dataclass(slots=True)
class ClusterSecrets:
    """Makes and renews them. Nothing is written over what is another's."""

    kube: Kube
    store: Store

    async def renew_keys(self, cluster: Cluster) -> None:
        """Have the key file be as it shall be now.

        Raises:
            Refused: a Secret of this name is another's.
            Stale: somebody was faster.
        """
        name, now = names.signing_key(cluster), time.time()
        found = await self.kube.get(SECRET, cluster.key.namespace, name)
        known: list[keys.SigningKey] = []
        if found is not None:
            _check_ours(cluster, found)
            note = (found["metadata"].get("annotations") or {}).get(names.KEY_ROLES, "")
            known = keys.from_file(_text(found, names.KEY_FILE), note, now=now)
        days = cluster.spec.security.key_rotation_days
        wanted = keys.rotated(known, days=days, now=now, fresh=lambda: secrets.token_hex(32))
        annotations = {
            names.KEY_ROLES: keys.to_note(wanted),
            RENEW_AT: f"{keys.next_rotation(wanted, days=days):.0f}",
        }
        files = {names.KEY_FILE: keys.key_file(wanted)}
        await self._write(cluster, name, found, files, annotations)

    async def renew_certificate(self, cluster: Cluster) -> None:
        """Have the workers' certificate be good for long; see `renew_keys`."""
        # Its library takes 8 MB that an operator without such a cluster does not need.
        from crossdock_operator import certificates  # noqa: PLC0415

        now, namespace = time.time(), cluster.key.namespace
        name = names.authority(cluster)
        found = await self.kube.get(SECRET, namespace, name)
        authorities: list[trust.Authority] = []
        if found is not None:
            _check_ours(cluster, found)
            known = json.loads(_text(found, _AUTHORITIES) or "[]")
            authorities = [trust.Authority(**each) for each in known]
        if trust.needs_authority(authorities, now):
            title = f"crossdock {cluster.key.namespace}/{cluster.key.name}"
            authorities.append(certificates.make_authority(title, now))
            kept = [asdict(each) for each in trust.trusted(authorities, now)]
            await self._write(cluster, name, found, {_AUTHORITIES: json.dumps(kept)}, {})
        signer = trust.signer(authorities, now)
        cert, key = certificates.make_certificate(signer, trust.server_names(cluster), now)
        files = {
            "tls.crt": cert,
            "tls.key": key,
            "ca.crt": "".join(each.cert for each in trust.trusted(authorities, now)),
        }
        name = names.certificate(cluster)
        found = await self.kube.get(SECRET, namespace, name)
        if found is not None:
            _check_ours(cluster, found)
        renew = {RENEW_AT: f"{trust.renew_at(now):.0f}"}
        await self._write(cluster, name, found, files, renew)

    async def _write(
        self,
        cluster: Cluster,
        name: str,
        found: Object | None,
        files: dict[str, str],
        annotations: dict[str, str],
    ) -> None:
        """Make a Secret, or change it if it is still as it was found."""
        data = {field: base64.b64encode(text.encode()).decode() for field, text in files.items()}
        metadata = names.metadata(cluster, name)
        if found is None:
            metadata["annotations"] = annotations
            body = await self.kube.create(SECRET, {"metadata": metadata, "data": data})
        else:
            version = found["metadata"]["resourceVersion"]
            patch = {
                "metadata": {"resourceVersion": version, "annotations": annotations},
                "data": data,
            }
            body = await self.kube.merge(SECRET, cluster.key.namespace, name, patch)
        self.store.saw_child(SECRET.name, body)
        log.info("wrote a Secret", cluster=cluster.key, name=name)


def _check_ours(cluster: Cluster, found: Object) -> None:
    name = found["metadata"]["name"]
    owners = found["metadata"].get("ownerReferences") or ()
    if all(owner["uid"] != cluster.uid for owner in owners):
        if any(owner["kind"] == "ShuffleCluster" for owner in owners):
            raise Stale(f"the Secret {name} is of the cluster before, and is about to go")
        raise Refused(
            f"the Secret {name} is there already, and is not of this cluster",
            hint="delete it, or give the cluster another name",
        )


def _text(secret: Object, field: str) -> str:
    return base64.b64decode((secret.get("data") or {}).get(field, "")).decode()
