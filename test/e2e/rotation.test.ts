// A key is rotated and retired while workloads of two nodes verify one another all along, by every kind of stream. With
// clients of another language: test/conformance/rotation.test.ts.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { splitCertificates } from '#pki/certificate.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import type { X509SVIDResponse } from '#rpc/gen/spiffe/workload/workload.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseJwks } from '#spiffe/bundle-json.ts'
import { validateJwtSvid } from '#spiffe/jwt-svid.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import {
  breath,
  eventually,
  LiveAgent,
  workloadHeader as metadata,
  ownSelector,
} from '../support/live-agent.ts'
import { LiveServer } from '../support/live-server.ts'

const trustDomain = parseTrustDomain('example.org')
const server = await LiveServer.start({
  settings: 'ratelimit: { attestation: false }\nreplacement_spread: 0s',
})
after(() => server[Symbol.asyncDispose]())
const agents = [await LiveAgent.start(server), await LiveAgent.start(server)] as const
after(() => Promise.all(agents.map((agent) => agent[Symbol.asyncDispose]())))
for (const agent of agents) {
  const parent = await agent.ready()
  for (const path of ['/client', '/server']) {
    await server.createEntry({ parent, path, selectors: [ownSelector] })
  }
  await agent.ready(2)
}
const nowSeconds = (): number => new SystemClock().now().epochMilliseconds / 1000

/** Fills in what a stream said last, for as long as the test runs. */
const stop = new AbortController()
after(() => stop.abort(new Error('the test is over')))

/** What the workloads of one node have at each moment: of every kind of stream the last message. */
class Workloads {
  readonly #agent: LiveAgent
  x509: X509SVIDResponse | undefined
  #roots: Uint8Array | undefined
  #jwks: Uint8Array | undefined
  messages = 0

  constructor(agent: LiveAgent) {
    this.#agent = agent
    const { workload } = agent
    const options = { metadata, signal: stop.signal }
    void this.#follow(workload.fetchX509SVID({}, options), (answer) => {
      this.x509 = answer
    })
    void this.#follow(workload.fetchX509Bundles({}, options), ({ bundles }) => {
      this.#roots = bundles.get('spiffe://example.org')
    })
    void this.#follow(workload.fetchJWTBundles({}, options), ({ bundles }) => {
      this.#jwks = bundles.get('spiffe://example.org')
    })
  }

  /** The bundles that a verifier may go by: those of its own SVID, and those of a stream of bundles. */
  bundles(): Bundle[] {
    const jwks = this.#jwks
    return [this.x509?.svids[0]?.bundle, this.#roots].flatMap((authorities) =>
      authorities === undefined || jwks === undefined
        ? []
        : {
            trustDomain,
            x509Authorities: splitCertificates(authorities).map((certificate) => ({
              certificate,
              tainted: false,
            })),
            jwtAuthorities: parseJwks(jwks),
            refreshHintSeconds: 0,
            sequenceNumber: 0n,
          },
    )
  }

  async token(): Promise<string> {
    const { svids } = await this.#agent.workload.fetchJWTSVID({ audience: ['peer'] }, { metadata })
    return svids[0]?.svid ?? ''
  }

  async #follow<T>(stream: AsyncIterable<T>, take: (answer: T) => void): Promise<void> {
    try {
      for await (const answer of stream) {
        take(answer)
        this.messages += 1
      }
    } catch {
      // The test is over, or it finds that nothing comes any more.
    }
  }
}

const nodes = agents.map((agent) => new Workloads(agent))
await eventually(() => nodes.every(({ messages }) => messages >= 3) || undefined, 'the streams')

/** Every workload verifies what every other one shows, as it stands now. */
function verifyAll(tokens: readonly string[]): number {
  const verifiers = nodes.flatMap((node) => node.bundles())
  let verified = 0
  for (const bundle of verifiers) {
    for (const { x509 } of nodes) {
      assert.equal(x509?.svids.length, 2, 'an identity is missing')
      for (const { x509Svid } of x509?.svids ?? []) {
        const certificates = splitCertificates(x509Svid)
        verifyX509Svid({ certificates, bundles: () => bundle, nowSeconds: nowSeconds() })
        verified += 1
      }
    }
    for (const token of tokens) {
      const against = { audience: 'peer', bundles: () => bundle, nowSeconds: nowSeconds() }
      validateJwtSvid(token, against)
      verified += 1
    }
  }
  return verified
}

/** Rotates and retires an authority, and returns the steps. */
async function rotate(kind: 'x509' | 'jwt', retire: boolean): Promise<string[]> {
  const steps: string[] = []
  const { signal } = stop
  const request = { kind, retire, force: false, predecessorId: '' }
  for await (const { step } of server.local.client(KeysDefinition).rotate(request, { signal })) {
    if (steps.at(-1) !== step) steps.push(step)
  }
  return steps
}

test('authorities are rotated and retired, and no workload ever fails to verify another', async () => {
  let verified = 0
  let isDone = false
  const verifying = (async () => {
    while (!isDone) {
      verified += verifyAll(await Promise.all(nodes.map((node) => node.token())))
      await breath(1)
    }
  })()
  const failing = verifying.then(() => new Promise<never>(() => {}))
  const before = nodes[0]?.x509?.svids[0]?.x509Svid
  const steps = await Promise.race([failing, rotate('x509', true)])
  assert.deepEqual(steps.at(-1), 'done')
  assert.ok(steps.includes('revoked'))
  assert.ok((await Promise.race([failing, rotate('jwt', false)])).includes('activated'))
  isDone = true
  await verifying
  assert.notDeepEqual(nodes[0]?.x509?.svids[0]?.x509Svid, before)
  assert.ok(verified > 100, `${verified} verifications`)
})
