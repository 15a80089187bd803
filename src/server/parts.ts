import { silentLog } from '#base/log.ts'
import { version } from '#base/version.ts'
import type { DaemonProcess } from '#daemon/daemon.ts'
import type { RegistrationEntry } from '#spiffe/registration-entry.ts'
import type { SpiffeId } from '#spiffe/spiffe-id.ts'
import { Audit } from '#telemetry/audit.ts'
import { Health } from '#telemetry/health.ts'
import { Metrics } from '#telemetry/metrics.ts'
import type { Administrators } from './administrators/administrators.ts'
import { openAdministrators } from './administrators/open-administrators.ts'
import { ConnectedAgents } from './api/connected-agents.ts'
import type { AuthorityManager } from './authority/authority-manager.ts'
import { BundleCache } from './bundle/bundle-cache.ts'
import { newUpstreamAuthority, openKeyManager, openNodeAttestors } from './catalog/built-ins.ts'
import { checkTrustDomain } from './check-trust-domain.ts'
import type { ServerConfig } from './config.ts'
import type { Datastore } from './datastore/datastore.ts'
import { AuthorizedEntries } from './entry/authorized-entries.ts'
import { IssueHistory } from './issue-history.ts'
import { LiveSettings } from './live-settings.ts'
import { meteredAuthority } from './metered-authority.ts'
import { meteredDatastore } from './metered-datastore.ts'
import { Namespaces } from './namespaces.ts'
import { NodeCache } from './node/node-cache.ts'
import { NodeHoldings } from './node/node-holdings.ts'
import { openAuthorities } from './open-authorities.ts'
import type { KeyManager } from './plugin/key-manager/key-manager.ts'
import type { NodeAttestor } from './plugin/node-attestor/node-attestor.ts'
import type { UpstreamAuthority } from './plugin/upstream-authority/upstream-authority.ts'
import { loadServerName } from './server-name.ts'
import { ServerSvid } from './svid/server-svid.ts'
import { DatastoreProbe, registerHealth, registerMetrics } from './vitals.ts'

/** What a server gets from the process it runs in. */
export interface ServerProcess extends DaemonProcess {
  /** The user it runs as. */
  readonly ownUid: number
  readonly openDatastore: (settings: ServerConfig['datastore']) => Datastore
}

/** What a server works with, from its start to its end; the sockets that callers reach it by come on top. */
export interface Parts {
  /** As it was at the start. */
  readonly config: ServerConfig
  readonly live: LiveSettings
  readonly process: ServerProcess
  readonly serverName: string
  readonly datastore: Datastore
  readonly keyManager: KeyManager
  readonly upstreamAuthority: UpstreamAuthority | undefined
  readonly authorities: AuthorityManager
  /** Issues for the services, and counts what it issues. */
  readonly authority: ReturnType<typeof meteredAuthority>
  readonly history: IssueHistory
  readonly serverSvid: ServerSvid
  readonly attestors: ReadonlyMap<string, NodeAttestor>
  readonly nodes: NodeCache
  readonly connected: ConnectedAgents
  readonly holdings: NodeHoldings
  readonly entries: AuthorizedEntries
  readonly bundles: BundleCache
  readonly administrators: Administrators
  readonly audit: Audit
  readonly metrics: Metrics
  readonly health: Health
  readonly probe: DatastoreProbe
}

/**
 * Opens what the configuration names, and reads into memory what is to be answered from there.
 *
 * @throws AssayError that says what to do: `failed-precondition` when an operator has to act first.
 */
export async function openParts(
  config: ServerConfig,
  process: ServerProcess,
  resources: AsyncDisposableStack,
): Promise<Parts> {
  const { clock, random, log, ownUid } = process
  const trustDomain = config.trust_domain
  const live = new LiveSettings(config)
  const serverName = await loadServerName(config.data_dir, random)
  const metrics = new Metrics({ processMetrics: true })
  metrics.buildInfo({ program: 'server', version, trustDomain })
  const datastore = meteredDatastore(resources.use(process.openDatastore(config.datastore)), {
    metrics,
    monotonicMs: process.monotonicMs,
  })
  await checkTrustDomain(datastore, config)
  const keyManager = resources.use(await openKeyManager(config, { ...process, metrics }))
  const nodes = resources.use(await NodeCache.load(datastore))
  const connected = new ConnectedAgents()
  const holdings = new NodeHoldings({
    nodes,
    isConnected: (agentId) => connected.has(agentId),
    clock,
  })
  const audit = new Audit({
    log: config.audit_log_enabled ? log.unfiltered : silentLog,
    clock,
    onLeftOut: (records) => metrics.linesLeftOut('audit', records),
  })
  resources.defer(() => audit.close())
  const upstreamAuthority = newUpstreamAuthority(config, process)
  if (upstreamAuthority !== undefined) resources.use(upstreamAuthority)
  const authorities = resources.use(
    await openAuthorities(config, {
      datastore,
      keyManager,
      holders: holdings,
      upstreamAuthority,
      serverName,
      svidDefaults: live.svidDefaults,
      audit,
      metrics,
      clock,
      random,
      log,
    }),
  )
  const entries = resources.use(await AuthorizedEntries.load(datastore, { trustDomain, clock }))
  const bundles = resources.use(await BundleCache.load(datastore))
  const serverSvid = await ServerSvid.open({
    authorities,
    clock,
    keyType: config.ca_key_type,
    log: log.child({ component: 'server-svid' }),
  })
  const attestors = await openNodeAttestors(config, { ...process, datastore })

  const health = new Health()
  const probe = new DatastoreProbe({ datastore, trustDomain, clock, metrics })
  const vitals = {
    authorities,
    holdings,
    bundles,
    entries,
    keyManager,
    nodes,
    serverSvid,
    datastore,
    probe,
  }
  registerHealth(health, vitals)
  registerMetrics(metrics, vitals)

  const namespaces = config.telemetry.by_namespace ? new Namespaces() : undefined
  if (namespaces !== undefined) {
    metrics.beforeReading(() =>
      metrics.namespaceEntries(namespaces.count(spiffeIdsOf(entries.all))),
    )
  }
  const history = new IssueHistory(clock)
  const { administrators: rows, admin_ids: adminIds } = config
  return {
    ...vitals,
    config,
    live,
    process,
    serverName,
    upstreamAuthority,
    authority: meteredAuthority(authorities.certificateAuthority, { metrics, history, namespaces }),
    history,
    attestors,
    connected,
    administrators: await openAdministrators({ rows, adminIds, ownUid }, { clock, log }),
    audit,
    metrics,
    health,
  }
}

function* spiffeIdsOf(entries: Iterable<RegistrationEntry>): Generator<SpiffeId> {
  for (const { spiffeId } of entries) yield spiffeId
}
