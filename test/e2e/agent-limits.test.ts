// What one user's processes can ask of an agent at once.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:http2'
import { connect as connectSocket } from 'node:net'
import { after, test } from 'node:test'
import { LiveAgent, workloadHeader as metadata } from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const server = await LiveServer.start()
after(() => server[Symbol.asyncDispose]())
const agent = await LiveAgent.start(server)
after(() => agent[Symbol.asyncDispose]())
await agent.ready()

test('the Workload API takes a token of any length that counts, and no longer request', async () => {
  const validate = (length: number) =>
    agent.workload.validateJWTSVID({ audience: 'a', svid: 'x'.repeat(length) }, { metadata })
  await assert.rejects(validate(16 * 1024), { code: /invalid-argument|permission-denied/ })
  await assert.rejects(validate(40_000), { code: 'resource-exhausted' })
})

test('the Workload API lets a connection have a bounded number of calls', async () => {
  const createConnection = () => connectSocket(agent.workloadSocket)
  const session = connect('http://localhost', { createConnection })
  await once(session, 'remoteSettings')
  assert.equal(session.remoteSettings.maxConcurrentStreams, 64)
  session.destroy()
})
