import { AssayError } from '#base/errors.ts'
import { ActivityDefinition } from '#rpc/gen/assay/server/v1/activity.ts'
import { ApprovalsDefinition } from '#rpc/gen/assay/server/v1/approvals.ts'
import { BackupDefinition } from '#rpc/gen/assay/server/v1/backup.ts'
import { FeedDefinition } from '#rpc/gen/assay/server/v1/feed.ts'
import { InventoryDefinition } from '#rpc/gen/assay/server/v1/inventory.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { OverviewDefinition } from '#rpc/gen/assay/server/v1/overview.ts'
import { PostQuantumDefinition } from '#rpc/gen/assay/server/v1/post_quantum.ts'
import { RefusalsDefinition } from '#rpc/gen/assay/server/v1/refusals.ts'
import { HealthDefinition } from '#rpc/gen/grpc/health/v1/health.ts'
import { AgentDefinition } from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { BundleDefinition } from '#rpc/gen/spire/api/server/bundle/v1/bundle.ts'
import { DebugDefinition } from '#rpc/gen/spire/api/server/debug/v1/debug.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { LocalAuthorityDefinition } from '#rpc/gen/spire/api/server/localauthority/v1/localauthority.ts'
import { LoggerDefinition } from '#rpc/gen/spire/api/server/logger/v1/logger.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { TrustDomainDefinition } from '#rpc/gen/spire/api/server/trustdomain/v1/trustdomain.ts'
import { healthHandlers } from '#rpc/health.ts'
import { type AdjustableLog, loggerHandlers } from '#rpc/logger.ts'
import type { RpcServer } from '#rpc/server.ts'
import type { Interceptor } from '#rpc/service.ts'
import type { Health } from '#telemetry/health.ts'
import type { Approvals } from '../administrators/approvals.ts'
import type { AuthorityManager } from '../authority/authority-manager.ts'
import type { LostState } from '../node/lost-state.ts'
import type { NodeHoldings } from '../node/node-holdings.ts'
import type { ServerSvid } from '../svid/server-svid.ts'
import { type ActivityServiceDependencies, newActivityService } from './activity.ts'
import { type AgentServiceDependencies, newAgentService } from './agent.ts'
import { newApprovalsService } from './approvals.ts'
import type { Authorizer } from './authorize.ts'
import { type BackupServiceDependencies, newBackupService } from './backup.ts'
import { type BundleServiceDependencies, newBundleService } from './bundle.ts'
import { notesOf } from './call-notes.ts'
import type { ConnectedAgents } from './connected-agents.ts'
import { type DebugServiceDependencies, newDebugService } from './debug.ts'
import { type EntryServiceDependencies, newEntryService } from './entry.ts'
import { type FeedServiceDependencies, newFeedService } from './feed.ts'
import { newInventoryService } from './inventory.ts'
import { type KeysServiceDependencies, newKeysService } from './keys.ts'
import { newLocalAuthorityService } from './local-authority.ts'
import { type ObserveDependencies, observing } from './observe.ts'
import { newOverviewService, type OverviewServiceDependencies } from './overview.ts'
import { newPostQuantumService } from './post-quantum.ts'
import { newRefusalsService } from './refusals.ts'
import { newSvidService, type SvidServiceDependencies } from './svid.ts'
import { newTrustDomainService } from './trust-domain.ts'

/** What the services of a server work with, all of them together. */
export interface ServiceDependencies
  extends AgentServiceDependencies,
    BackupServiceDependencies,
    BundleServiceDependencies,
    DebugServiceDependencies,
    EntryServiceDependencies,
    FeedServiceDependencies,
    KeysServiceDependencies,
    ObserveDependencies,
    OverviewServiceDependencies,
    ActivityServiceDependencies,
    SvidServiceDependencies {
  readonly datastore: AgentServiceDependencies['datastore'] & BackupServiceDependencies['datastore']
  readonly entries: EntryServiceDependencies['entries'] &
    FeedServiceDependencies['entries'] &
    SvidServiceDependencies['entries'] &
    DebugServiceDependencies['entries'] &
    OverviewServiceDependencies['entries']
  readonly bundles: BundleServiceDependencies['bundles']
  readonly lostState: LostState
  readonly serverSvid: ServerSvid
  readonly nodes: OverviewServiceDependencies['nodes'] &
    FeedServiceDependencies['nodes'] &
    DebugServiceDependencies['nodes'] &
    BundleServiceDependencies['nodes'] &
    ActivityServiceDependencies['nodes']
  readonly connected: ConnectedAgents
  readonly authority: SvidServiceDependencies['authority']
  readonly authorities: AuthorityManager
  readonly authorizer: Authorizer
  readonly holdings: NodeHoldings
  readonly limits: Interceptor
  /** Makes calls wait for the agreement of others. */
  readonly approvalsNeeded: Interceptor
  readonly approvals: Approvals
  readonly processLog: AdjustableLog
  readonly health: Pick<Health, 'report'>
}

/** The services for agents, admins and downstream servers over TLS, behind limits and authorization. */
export function addTlsServices(server: RpcServer, dependencies: ServiceDependencies): void {
  guard(server, 'tls', dependencies)
  server.use(dependencies.limits)
  server.use(dependencies.approvalsNeeded)
  addSharedServices(server, dependencies)
}

/** The services for processes on the administration socket: the same ones, and those that are theirs alone. */
export function addLocalServices(server: RpcServer, dependencies: ServiceDependencies): void {
  guard(server, 'unix', dependencies)
  server.use(dependencies.approvalsNeeded)
  addSharedServices(server, dependencies)
  server.addService(DebugDefinition, newDebugService(dependencies))
  server.addService(BackupDefinition, newBackupService(dependencies))
  server.addService(
    LoggerDefinition,
    loggerHandlers(dependencies.processLog, (change, context) => {
      notesOf(context).details = { ...change }
    }),
  )
  const { health, clock } = dependencies
  server.addService(
    HealthDefinition,
    healthHandlers({
      check: (service) => (service === '' ? health.report().ready : undefined),
      services: [],
      clock,
    }),
  )
}

function addSharedServices(server: RpcServer, dependencies: ServiceDependencies): void {
  server.addService(AgentDefinition, newAgentService(dependencies))
  server.addService(BundleDefinition, newBundleService(dependencies))
  server.addService(EntryDefinition, newEntryService(dependencies))
  server.addService(SVIDDefinition, newSvidService(dependencies))
  server.addService(TrustDomainDefinition, newTrustDomainService())
  server.addService(LocalAuthorityDefinition, newLocalAuthorityService(dependencies.authorities))
  server.addService(FeedDefinition, newFeedService(dependencies))
  server.addService(InventoryDefinition, newInventoryService(dependencies))
  server.addService(PostQuantumDefinition, newPostQuantumService(dependencies))
  server.addService(KeysDefinition, newKeysService(dependencies))
  server.addService(ApprovalsDefinition, newApprovalsService(dependencies.approvals))
  server.addService(OverviewDefinition, newOverviewService(dependencies))
  server.addService(ActivityDefinition, newActivityService(dependencies))
  server.addService(RefusalsDefinition, newRefusalsService(dependencies.audit))
}

function guard(
  server: RpcServer,
  transport: 'tls' | 'unix',
  dependencies: ServiceDependencies,
): void {
  server.use(observing(dependencies))
  server.use(async ({ context }, next) => {
    // What a listener takes its callers for decides what they may do; a mix-up must never make one local.
    if (context.peer.kind !== transport) {
      throw new AssayError('unauthenticated', 'the connection is gone', { reason: 'cancelled' })
    }
    const caller = await dependencies.authorizer.authorize(context)
    if (caller.class === 'agent') {
      const { peer } = context
      dependencies.holdings.seen(caller.node.agentId, peer.kind === 'tls' ? peer : undefined)
    }
    await next()
  })
}
