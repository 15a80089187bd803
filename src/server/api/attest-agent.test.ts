import assert from 'node:assert/strict'
import { sign } from 'node:crypto'
import { test } from 'node:test'
import { utf8Bytes, utf8Text } from '#base/bytes.ts'
import { AssayError } from '#base/errors.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { createCsr } from '#pki/csr.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import type { CallContext } from '#rpc/call.ts'
import type {
  AttestAgentRequest,
  AttestAgentResponse,
} from '#rpc/gen/spire/api/server/agent/v1/agent.ts'
import { parseSpiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { memoryDatastore } from '../../../test/support/memory-datastore.ts'
import { asBanned } from '../node/banned.ts'
import type { AttestationExchange, AttestedNode } from '../plugin/node-attestor/node-attestor.ts'
import { attestAgent } from './attest-agent.ts'
import { notesOf } from './call-notes.ts'

const key = generateEcKeyPair('ec-p256')
const csr = createCsr({
  publicKey: key.publicKey,
  sign: (tbs, hash) => new Uint8Array(sign(hash, tbs, key.privateKey)),
})
const first: AttestAgentRequest = {
  step: {
    $case: 'params',
    value: { data: { type: 'quiz', payload: utf8Bytes('hello') }, params: { csr } },
  },
}
const response = (text: string): AttestAgentRequest => ({
  step: { $case: 'challengeResponse', value: utf8Bytes(text) },
})
const agentId = parseSpiffeId('spiffe://example.org/spire/agent/quiz/1')
const proved: AttestedNode = { agentId, selectors: [], canReattest: true }

/** One attestation by a node attestor of the test's, with what it has seen and done. */
function attestation(attest: (exchange: AttestationExchange) => Promise<AttestedNode>) {
  const clock = new FakeClock()
  const datastore = memoryDatastore()
  const attested: string[] = []
  const gone = new AbortController()
  const context: CallContext = {
    peer: {
      kind: 'tls',
      address: '192.0.2.1',
      spiffeId: undefined,
      certificate: undefined,
      serialNumber: '',
      expiresAtSeconds: 0,
      keyAgreement: 'X25519MLKEM768',
      pq: undefined,
      exporter: (label, length) => utf8Bytes(label.padEnd(length).slice(0, length)),
    },
    method: '/spire.api.server.agent.v1.Agent/AttestAgent',
    signal: gone.signal,
    metadata: () => [],
    requestId: 'r',
  }
  const run = (requests: AsyncIterable<AttestAgentRequest>): AsyncGenerator<AttestAgentResponse> =>
    attestAgent(
      {
        trustDomain: parseTrustDomain('example.org'),
        attestors: new Map([['quiz', { type: 'quiz', attest }]]),
        authority: {
          issueX509Svid: async ({ spiffeId, publicKey }) => {
            assert.equal(publicKey.toHex(), key.publicKey.toHex())
            const svid = { certificates: [], serialNumber: '42', expiresAtSeconds: 99 }
            return { spiffeId, authorityId: 'aa', ...svid }
          },
        },
        datastore,
        holdings: { handedOut: () => {} },
        clock,
        log: silentLog,
        onAttested: (id) => attested.push(id),
      },
      requests,
      context,
    )
  return { clock, datastore, attested, gone, context, run }
}

async function* sending(...requests: readonly AttestAgentRequest[]) {
  yield* requests
}

test('attestAgent() passes challenges and responses between attestor and agent, then admits', async () => {
  const seen: string[] = []
  const { run, datastore, attested, context } = attestation(async (exchange) => {
    seen.push(utf8Text(exchange.payload), exchange.peerAddress)
    assert.equal(exchange.csrPublicKey.toHex(), key.publicKey.toHex())
    assert.equal(exchange.tlsExporter('EXPORTER-x', 4)?.length, 4)
    for (const question of ['one', 'two']) {
      seen.push(utf8Text(await exchange.challenge(utf8Bytes(question))))
    }
    return proved
  })
  const steps = await Array.fromAsync(run(sending(first, response('1'), response('2'))))
  assert.deepEqual(
    steps.map(({ step }) =>
      step?.$case === 'challenge' ? utf8Text(step.value) : step?.value.reattestable,
    ),
    ['one', 'two', true],
  )
  assert.deepEqual(seen, ['hello', '192.0.2.1', '1', '2'])
  assert.deepEqual(attested, [agentId])
  assert.equal((await datastore.node(agentId))?.serialNumber, '42')
  assert.deepEqual(notesOf(context), {
    attestationType: 'quiz',
    subject: agentId,
    details: { serialNumber: '42', expiresAt: 99, keyAgreement: 'X25519MLKEM768' },
  })
})

test('attestAgent() ends with the attestor’s own refusal', async () => {
  const { run, datastore } = attestation(async (exchange) => {
    await exchange.challenge(utf8Bytes('?'))
    throw new AssayError('permission-denied', 'wrong', { reason: 'quiz-failed' })
  })
  await assert.rejects(Array.fromAsync(run(sending(first, response('x')))), {
    reason: 'quiz-failed',
  })
  assert.equal(await datastore.node(agentId), undefined)
})

for (const [what, requests] of [
  ['ends the stream', [first]],
  ['begins anew', [first, first]],
] as const) {
  test(`attestAgent() refuses an agent that ${what} instead of answering`, async () => {
    let ended: unknown
    const { run } = attestation(async (exchange) => {
      try {
        await exchange.challenge(utf8Bytes('?'))
      } catch (error) {
        ended = error
      }
      return proved
    })
    await assert.rejects(Array.fromAsync(run(sending(...requests))), { code: 'invalid-argument' })
    assert.ok(ended instanceof Error, 'the attestor is told too')
  })
}

test('attestAgent() gives up an attestation that takes too long, and one whose agent is gone', async () => {
  async function* silent() {
    yield first
    await new Promise(() => {})
  }
  let signal: AbortSignal | undefined
  const hanging = async (exchange: AttestationExchange): Promise<AttestedNode> => {
    signal = exchange.signal
    await exchange.challenge(utf8Bytes('?'))
    return proved
  }
  const slow = attestation(hanging)
  const late = slow.run(silent())
  await late.next()
  const timedOut = assert.rejects(late.next(), { reason: 'attestation-timeout' })
  await slow.clock.advance(Temporal.Duration.from({ seconds: 120 }))
  await timedOut
  assert.equal(signal?.aborted, true)

  const left = attestation(hanging)
  const steps = left.run(silent())
  await steps.next()
  const aborted = assert.rejects(steps.next(), /gone/)
  left.gone.abort(new Error('gone'))
  await aborted
  assert.equal(left.clock.sleeping, 0)
})

for (const id of [
  'spiffe://example.org/spire/agent/tpm/1',
  'spiffe://example.org/spire/server',
  'spiffe://example.org/web',
  'spiffe://other.org/spire/agent/quiz/1',
]) {
  test(`attestAgent() does not let an attestor give ${id}`, async () => {
    const { run, datastore } = attestation(async () => ({ ...proved, agentId: parseSpiffeId(id) }))
    await assert.rejects(Array.fromAsync(run(sending(first))), { reason: 'agent-id-not-allowed' })
    assert.equal(await datastore.countNodes({}), 0)
  })
}

test('attestAgent() gives a node that is banned meanwhile no SVID', async () => {
  const { run, datastore } = attestation(async () => proved)
  await Array.fromAsync(run(sending(first)))
  const again = run(sending(first))
  const write = datastore.writeNode.bind(datastore)
  datastore.writeNode = async (id, change) => {
    await datastore.updateNode(id, asBanned)
    return write(id, change)
  }
  await assert.rejects(Array.fromAsync(again), { reason: 'agent-banned' })
  assert.equal((await datastore.node(agentId))?.serialNumber, '')
})

test('attestAgent() does not lift a ban when the node attested for the first time twice at once', async () => {
  const { run, datastore } = attestation(async () => proved)
  const write = datastore.writeNode.bind(datastore)
  datastore.writeNode = async (id, change) => {
    datastore.writeNode = write
    await Array.fromAsync(run(sending(first)))
    await datastore.updateNode(id, asBanned)
    return write(id, change)
  }
  await assert.rejects(Array.fromAsync(run(sending(first))), { reason: 'agent-banned' })
  assert.equal((await datastore.node(agentId))?.serialNumber, '')
})

test('attestAgent() bans a node whose attestor takes back what it proved', async () => {
  const { run, datastore, attested } = attestation(async () => ({
    ...proved,
    confirm: async () => {
      assert.equal((await datastore.node(agentId))?.serialNumber, '42', 'it is asked afterwards')
      throw new AssayError('permission-denied', 'banned since', { reason: 'quiz-banned' })
    },
  }))
  await assert.rejects(Array.fromAsync(run(sending(first))), { reason: 'quiz-banned' })
  assert.equal((await datastore.node(agentId))?.serialNumber, '')
  assert.deepEqual(attested, [])
})
