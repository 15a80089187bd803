// Run as another user: prints what each method of the Workload API answers, by name. Its argument is the socket.
import process from 'node:process'
import { SystemClock } from '../../src/base/clock.ts'
import { AssayError } from '../../src/base/errors.ts'
import { connectUnix } from '../../src/rpc/client.ts'
import { SpiffeWorkloadAPIDefinition } from '../../src/rpc/gen/spiffe/workload/workload.ts'

const [, , socket = ''] = process.argv
using connection = connectUnix(socket, { clock: new SystemClock() })
const client = connection.client(SpiffeWorkloadAPIDefinition)
const options = { metadata: { 'workload.spiffe.io': 'true' } }

async function first<T>(answers: AsyncIterable<T>): Promise<T | undefined> {
  for await (const answer of answers) return answer
  return undefined
}

async function outcome(work: Promise<string>): Promise<string> {
  try {
    return await work
  } catch (error) {
    return error instanceof AssayError ? error.code : String(error)
  }
}

const ok = async (answer: Promise<unknown>): Promise<string> => {
  await answer
  return 'ok'
}
const said = {
  fetchX509SVID: await outcome(
    first(client.fetchX509SVID({}, options)).then((answer) => answer?.svids[0]?.spiffeId ?? 'none'),
  ),
  fetchX509Bundles: await outcome(ok(first(client.fetchX509Bundles({}, options)))),
  fetchJWTBundles: await outcome(ok(first(client.fetchJWTBundles({}, options)))),
  fetchJWTSVID: await outcome(ok(client.fetchJWTSVID({ audience: ['a'] }, options))),
  validateJWTSVID: await outcome(ok(client.validateJWTSVID({ audience: 'a', svid: 'a' }, options))),
}
process.stdout.write(JSON.stringify(said))
