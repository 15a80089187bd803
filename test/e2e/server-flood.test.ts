// One agent floods the server; another one is served all the same.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { Worker } from 'node:worker_threads'
import { encodePem } from '#pki/pem.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { SVIDDefinition } from '#rpc/gen/spire/api/server/svid/v1/svid.ts'
import { csrOf, LiveServer, type TestAgent } from '../support/live-server.ts'

const live = await LiveServer.start()
after(() => live[Symbol.asyncDispose]())

const megabyte = 2 ** 20

/** How many connections, calls and requests of a peer with too much under way were refused. */
async function refusals(): Promise<readonly number[]> {
  const answer = await fetch(`http://127.0.0.1:${live.server.metricsPort}/metrics`)
  const text = await answer.text()
  return ['connections', 'calls', 'request-bytes'].map((what) =>
    Number(
      new RegExp(`^assay_rpc_excess_total.what="${what}". ([0-9]+)$`, 'm').exec(text)?.[1] ?? 0,
    ),
  )
}

function flood(agent: TestAgent): AsyncDisposable {
  const worker = new Worker(new URL('../support/flooding-agent.ts', import.meta.url), {
    workerData: {
      port: live.server.port,
      key: agent.identity.key.export({ format: 'pem', type: 'pkcs8' }),
      cert: agent.identity.certificates.map((der) => encodePem('CERTIFICATE', der)).join(''),
      connections: 40,
      streams: 20,
      bytes: 4 * megabyte - 2,
    },
  })
  return {
    async [Symbol.asyncDispose]() {
      await worker.terminate()
    },
  }
}

test('an agent that floods the server takes neither its memory nor the time of other agents', async () => {
  const [flooding, honest] = [await live.attest(), await live.attest()]
  const entry = await live.createEntry({ parent: honest.id, path: '/web' })
  const params = [{ entryId: entry.id, csr: csrOf(generateEcKeyPair('ec-p256')) }]
  const sign = async (): Promise<number> => {
    const start = performance.now()
    const { results } = await honest.connection.client(SVIDDefinition).batchNewX509SVID({ params })
    assert.equal(results[0]?.status?.code, 0)
    return performance.now() - start
  }
  await sign()
  const heap = process.memoryUsage().heapUsed
  const took: number[] = []
  {
    await using _attack = flood(flooding)
    while ((await refusals()).some((count) => count === 0)) took.push(await sign())
    for (let i = 0; i < 20; i++) took.push(await sign())
  }
  const worst = Math.max(...took)
  const grown =
    (process.memoryUsage().heapUsed - heap + process.memoryUsage().arrayBuffers) / megabyte
  assert.ok(worst < 2000, `${worst} ms for one signature`)
  assert.ok(grown < 200, `${grown} MB more`)
  const lines = live.lines.filter((line) => line.includes('a peer has too much under way'))
  assert.ok(lines.length > 0 && lines.every((line) => line.includes(flooding.id)))
  assert.ok(lines.length <= 9, 'three in ten seconds')
})
