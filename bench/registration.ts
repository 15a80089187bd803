import { SystemClock } from '#base/clock.ts'
import { connectUnix } from '#rpc/client.ts'
import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { Entry } from '#rpc/gen/spire/api/types/entry.ts'
import type { ServerAddress } from './agent-session.ts'

export const clock = new SystemClock()

/** Items of one batch. */
const batchSize = 500

/** Entries that are alike but for the last segment of their path, unless they are there already; returns their ids. */
export async function createEntries(
  { socket }: ServerAddress,
  count: number,
  like: {
    readonly parentId: string
    readonly path: string
    /** Of type unix: `uid:0`. */
    readonly selector: string
  },
): Promise<string[]> {
  using connection = connectUnix(socket, { clock })
  const client = connection.client(EntryDefinition)
  const parentId = wireId(like.parentId)
  const ids: string[] = []
  for (let at = 0; at < count; at += batchSize) {
    const entries = Array.from({ length: Math.min(batchSize, count - at) }, (_, index) =>
      Entry.create({
        parentId,
        spiffeId: { trustDomain: parentId.trustDomain, path: `${like.path}/${at + index}` },
        selectors: [{ type: 'unix', value: like.selector }],
      }),
    )
    const { results } = await client.batchCreateEntry({ entries })
    ids.push(...results.flatMap(({ entry }) => entry?.id ?? []))
  }
  if (ids.length !== count) throw new Error(`${count - ids.length} entries could not be created`)
  return ids
}

export async function deleteEntries(
  { socket }: ServerAddress,
  ids: readonly string[],
): Promise<void> {
  using connection = connectUnix(socket, { clock })
  const client = connection.client(EntryDefinition)
  for (let at = 0; at < ids.length; at += batchSize)
    await client.batchDeleteEntry({ ids: ids.slice(at, at + batchSize) })
}

/** Tries until it succeeds: a server or agent that reads its entries at intervals does not know new ones yet. */
export async function untilTrue(
  condition: () => Promise<boolean>,
  { everyMs = 200, seconds = 30 } = {},
): Promise<void> {
  const late = AbortSignal.timeout(seconds * 1000)
  while (!(await condition().catch(() => false)))
    await clock.sleep(Temporal.Duration.from({ milliseconds: everyMs }), late)
}

function wireId(id: string): { trustDomain: string; path: string } {
  const [, , trustDomain = '', ...path] = id.split('/')
  return { trustDomain, path: `/${path.join('/')}` }
}
