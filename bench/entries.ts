import { EntryDefinition } from '#rpc/gen/spire/api/server/entry/v1/entry.ts'
import { openAgentSession } from './agent-session.ts'
import { type Effort, type Figure, measure } from './measure.ts'
import { createEntries, deleteEntries, untilTrue } from './registration.ts'
import type { Subject } from './subject.ts'

/** An agent that may serve `count` entries asks for all of them, four at a time. */
export async function authorizedEntries(
  work: string,
  { server }: Subject,
  { count, ...effort }: Effort & { readonly count: number },
): Promise<Figure> {
  const { id, connection } = await openAgentSession(server)
  using session = connection
  const ids = await createEntries(server, count, {
    parentId: id,
    path: '/bench/many',
    selector: 'uid:4294967294',
  })
  try {
    const client = session.client(EntryDefinition)
    const call = async (): Promise<void> => {
      const { entries } = await client.getAuthorizedEntries({})
      if (entries.length !== count) throw new Error(`${entries.length} entries instead of ${count}`)
    }
    await untilTrue(() => call().then(() => true))
    return await measure({ work, pid: server.pid, concurrency: 4, call }, effort)
  } finally {
    await deleteEntries(server, ids)
  }
}
