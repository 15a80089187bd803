import { AssayError } from '#base/errors.ts'
import { trustDomainOf } from '#spiffe/spiffe-id.ts'
import type { ServerConfig } from './config.ts'
import type { Datastore } from './datastore/datastore.ts'

/** @throws AssayError `failed-precondition` when the datastore is another trust domain's. */
export async function checkTrustDomain(datastore: Datastore, config: ServerConfig): Promise<void> {
  const all = { pageSize: 0, pageToken: '' }
  const [entries, nodes] = await Promise.all([
    datastore.listEntries({}, all),
    datastore.listNodes({}, all),
  ])
  const ids = [
    ...entries.items.map(({ spiffeId }) => spiffeId),
    ...nodes.items.map(({ agentId }) => agentId),
  ]
  const found = ids.map(trustDomainOf).find((name) => name !== config.trust_domain)
  if (found === undefined) return
  throw new AssayError(
    'failed-precondition',
    `cannot use the datastore ${config.datastore.path}: it has entries or nodes of trust domain ${found}, and trust_domain is ${config.trust_domain}`,
    { reason: 'datastore-of-other-trust-domain' },
  )
}
