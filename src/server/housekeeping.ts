import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log.ts'
import { type Random, randomFraction } from '#base/random.ts'
import { runTasks } from '#base/tasks.ts'
import type { Audit } from '#telemetry/audit.ts'
import type { Datastore } from './datastore/datastore.ts'

export interface HousekeepingDependencies {
  readonly datastore: Datastore
  readonly holdings: { prune(): void }
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly audit: Pick<Audit, 'change'>
  /** Nodes whose SVID expired this long ago are forgotten, if they can attest again; undefined: none are. */
  readonly pruneNodesAfterSeconds: number | undefined
}

/** Removes what time has made useless: entries, join tokens and nodes. Runs until it is aborted. */
export async function keepHouse(
  dependencies: HousekeepingDependencies,
  signal: AbortSignal,
): Promise<void> {
  const { datastore, holdings, clock, log, audit, pruneNodesAfterSeconds } = dependencies
  const nowSeconds = (): number => Math.floor(clock.now().epochMilliseconds / 1000)
  const chores: readonly Chore[] = [
    {
      what: 'expired entries',
      everySeconds: 300,
      work: async () => {
        const pruned = await datastore.pruneEntries(nowSeconds())
        for (const { id, spiffeId } of pruned) {
          log.info({ entry: id, spiffeId }, 'entry expired')
          audit.change({ action: 'entry-expired', subject: id, details: { spiffeId } })
        }
      },
    },
    {
      what: 'what gone nodes held',
      everySeconds: 3600,
      work: async () => holdings.prune(),
    },
    {
      what: 'expired join tokens',
      everySeconds: 3600,
      work: async () => {
        const count = await datastore.pruneJoinTokens(nowSeconds())
        if (count > 0) audit.change({ action: 'join-tokens-expired', details: { count } })
      },
    },
    {
      what: 'nodes that are gone',
      everySeconds: 3600,
      work: async () => {
        if (pruneNodesAfterSeconds === undefined) return
        const { items } = await datastore.listNodes(
          {
            expiresBeforeSeconds: nowSeconds() - pruneNodesAfterSeconds,
            banned: false,
            canReattest: true,
          },
          { pageSize: 1000, pageToken: '' },
        )
        for (const { agentId } of items) {
          await datastore.deleteNode(agentId)
          audit.change({ action: 'node-forgotten', subject: agentId })
        }
        if (items.length > 0) log.info({ count: items.length }, 'expired nodes forgotten')
      },
    },
  ]
  await runTasks(
    signal,
    chores.map((chore) => (stop) => repeat(chore, dependencies, stop)),
  )
}

interface Chore {
  readonly what: string
  readonly everySeconds: number
  readonly work: () => Promise<void>
}

/** A chore that fails is done again the next time. The first wait is random, so that servers take turns. */
async function repeat(
  { what, everySeconds, work }: Chore,
  { clock, random, log }: HousekeepingDependencies,
  signal: AbortSignal,
): Promise<void> {
  const wait = (seconds: number): Promise<void> =>
    clock.sleep(Temporal.Duration.from({ milliseconds: Math.round(seconds * 1000) }), signal)
  await wait(everySeconds * randomFraction(random))
  for (;;) {
    try {
      await work()
    } catch (error) {
      log.warn({ error }, `cannot remove ${what}, will try again`)
    }
    await wait(everySeconds)
  }
}
