import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AssayError } from '#base/errors.ts'
import { exportPkcs8 } from '#pki/private-key.ts'
import type { SpiffeWorkloadAPIDefinition } from '#rpc/gen/spiffe/workload/workload.ts'
import type { Handlers } from '#rpc/service.ts'
import { newAuthority, newSvid } from '../../test/support/certificates.ts'
import { clock, serve } from '../../test/support/rpc.ts'
import { WorkloadApi } from './workload-api.ts'

const authority = newAuthority('example.org')
const other = newAuthority('other.org')
const svid = newSvid(authority, 'spiffe://example.org/web')
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text)

const x509Svid = {
  spiffeId: 'spiffe://example.org/web',
  x509Svid: svid.certificate,
  x509SvidKey: exportPkcs8(svid.key.privateKey),
  bundle: authority.certificate,
  hint: 'internal',
}

const part = (content: object): string =>
  utf8(JSON.stringify(content)).toBase64({ alphabet: 'base64url', omitPadding: true })
const tokenWith = (claims: object): string => `${part({ alg: 'ES256' })}.${part(claims)}.c2ln`

type Workload = Handlers<SpiffeWorkloadAPIDefinition>

/** Runs `use` against an agent with these handlers; the others must not be called. */
async function withAgent(
  handlers: Partial<Workload>,
  use: (api: WorkloadApi, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  await using served = await serve({ workload: handlers as Workload })
  using api = new WorkloadApi(`unix://${served.path}`, clock)
  await use(api, AbortSignal.timeout(10_000))
}

const failsWith = (code: string, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof AssayError)
  assert.equal(error.code, code)
  assert.match(error.message, message)
  return true
}

test('WorkloadApi.x509Contexts() yields each message as a whole, and sends the security header', async () => {
  const headers: string[] = []
  const handlers: Partial<Workload> = {
    async *fetchX509SVID(_request, context) {
      headers.push(...context.metadata('workload.spiffe.io'))
      const federatedBundles = new Map([['spiffe://other.org', other.certificate]])
      yield { svids: [x509Svid], crl: [], federatedBundles }
      yield { svids: [{ ...x509Svid, hint: '' }], crl: [], federatedBundles: new Map() }
    },
  }
  await withAgent(handlers, async (api, signal) => {
    const [first, second] = await Array.fromAsync(api.x509Contexts(signal))
    assert.deepEqual(headers, ['true'])
    assert.equal(first?.svids[0]?.spiffeId, 'spiffe://example.org/web')
    assert.equal(first?.svids[0]?.hint, 'internal')
    assert.equal(first?.svids[0]?.certificates[0]?.raw.toHex(), svid.certificate.toHex())
    assert.deepEqual([...(first?.bundles.keys() ?? [])], ['example.org', 'other.org'])
    assert.deepEqual([...(second?.bundles.keys() ?? [])], ['example.org'])
  })
})

test('WorkloadApi.x509Context() throws what the agent answers', async () => {
  const handlers: Partial<Workload> = {
    // biome-ignore lint/correctness/useYield: it ends before there is anything to say
    async *fetchX509SVID() {
      throw new AssayError('permission-denied', 'no identity issued')
    },
  }
  await withAgent(handlers, async (api, signal) => {
    await assert.rejects(
      api.x509Context(signal),
      failsWith('permission-denied', /no identity issued/),
    )
  })
})

test('WorkloadApi refuses an answer without SVIDs, and a stream that ends without an answer', async () => {
  const empty: Partial<Workload> = {
    async *fetchX509SVID() {
      yield { svids: [], crl: [], federatedBundles: new Map() }
    },
    async *fetchX509Bundles() {},
    async *fetchJWTBundles() {},
  }
  await withAgent(empty, async (api, signal) => {
    await assert.rejects(api.x509Context(signal), failsWith('internal', /without an SVID/))
    const ended = failsWith('unavailable', /ended the stream without an answer/)
    await assert.rejects(api.x509Bundles(signal), ended)
    await assert.rejects(api.jwtBundles(signal), ended)
  })
})

test('WorkloadApi.x509Bundles() and jwtBundles() are by trust domain', async () => {
  const handlers: Partial<Workload> = {
    async *fetchX509Bundles() {
      yield { crl: [], bundles: new Map([['spiffe://other.org', other.certificate]]) }
    },
    async *fetchJWTBundles() {
      yield { bundles: new Map([['spiffe://other.org', utf8('{"keys":[]}')]]) }
    },
  }
  await withAgent(handlers, async (api, signal) => {
    const bundles = await api.x509Bundles(signal)
    const texts = [...bundles].map(([name, roots]) => [name, roots.map((der) => der.toHex())])
    assert.deepEqual(texts, [['other.org', [other.certificate.toHex()]]])
    assert.deepEqual([...(await api.jwtBundles(signal))], [['other.org', '{"keys":[]}']])
  })
})

test('WorkloadApi.jwtSvids() tells when each token ends, and refuses one that never does', async () => {
  let claims: object = { exp: 1767225600.5 }
  const handlers: Partial<Workload> = {
    async fetchJWTSVID({ audience, spiffeId }) {
      assert.deepEqual([audience, spiffeId], [['a', 'b'], 'spiffe://example.org/web'])
      return { svids: [{ spiffeId, svid: tokenWith(claims), hint: 'h' }] }
    },
  }
  await withAgent(handlers, async (api, signal) => {
    const options = { spiffeId: 'spiffe://example.org/web', signal }
    assert.deepEqual(await api.jwtSvids(['a', 'b'], options), [
      {
        spiffeId: 'spiffe://example.org/web',
        token: tokenWith(claims),
        expiresAtSeconds: 1767225600,
        hint: 'h',
      },
    ])
    claims = {}
    await assert.rejects(api.jwtSvids(['a', 'b'], options), failsWith('internal', /never expires/))
  })
})

test('WorkloadApi.validateJwtSvid() passes the token and its audience on', async () => {
  const handlers: Partial<Workload> = {
    async validateJWTSVID(request) {
      assert.deepEqual({ ...request }, { audience: 'db', svid: 'a.b.c' })
      return { spiffeId: 'spiffe://example.org/web', claims: { aud: ['db'] } }
    },
  }
  await withAgent(handlers, async (api, signal) => {
    assert.deepEqual(await api.validateJwtSvid('a.b.c', { audience: 'db', signal }), {
      spiffeId: 'spiffe://example.org/web',
      claims: { aud: ['db'] },
    })
  })
})

test('WorkloadApi.connect() throws unavailable when nobody listens', async () => {
  using api = new WorkloadApi('unix:///nowhere/api.sock', clock)
  const signal = AbortSignal.timeout(10_000)
  await assert.rejects(api.connect({ signal }), failsWith('unavailable', /ENOENT/))
})
