import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { newCsr, openAgentSession } from './agent-session.ts'
import { type Effort, type Figure, measure } from './measure.ts'
import { createEntries, untilTrue } from './registration.ts'
import type { Subject } from './subject.ts'

/** An agent over one mutual TLS connection that may have 100 SVIDs signed. */
async function openSigningSession({ server }: Subject) {
  const { id, connection } = await openAgentSession(server)
  const entryIds = await createEntries(server, 100, {
    parentId: id,
    path: `/bench/issue/${id.split('/').at(-1)}`,
    selector: 'uid:4294967294',
  })
  const client = connection.client(SVIDDefinition)
  const params = entryIds.map((entryId) => ({ entryId, csr: newCsr() }))
  await untilTrue(async () => {
    const { results } = await client.batchNewX509SVID({ params })
    return results.every(({ status }) => status?.code === 0)
  })
  return { client, params, entryIds, [Symbol.dispose]: () => connection.close() }
}

/** Agents have X.509-SVIDs signed, `size` a call. */
export const x509Issuance =
  (size: number, concurrency: number) =>
  async (work: string, subject: Subject, effort: Effort): Promise<Figure> => {
    using session = await openSigningSession(subject)
    const params = session.params.slice(0, size)
    const load = {
      work,
      pid: subject.server.pid,
      concurrency,
      operations: size,
      async call() {
        const { results } = await session.client.batchNewX509SVID({ params })
        if (results.length !== size || results[0]?.status?.code !== 0)
          throw new Error('an SVID was not issued')
      },
    }
    return await measure(load, effort)
  }

/** Agents have JWT-SVIDs signed, one a call. */
export async function jwtIssuance(work: string, subject: Subject, effort: Effort): Promise<Figure> {
  using session = await openSigningSession(subject)
  const [entryId = ''] = session.entryIds
  const load = {
    work,
    pid: subject.server.pid,
    async call() {
      await session.client.newJWTSVID({ entryId, audience: ['bench'] })
    },
  }
  return await measure(load, effort)
}
