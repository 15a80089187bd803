import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCertificate } from '#pki/certificate.ts'
import { generateEcKeyPair } from '#pki/private-key.ts'
import { altPublicKey, altSignature } from '#pq-crypto/alternative-signature.ts'
import type { MlDsaParameterSet } from '#pq-crypto/ml-dsa.ts'
import { mlDsaParameterSets } from '#pq-crypto/ml-dsa.ts'
import { verifyHybridX509Svid } from '#spiffe/hybrid-x509-svid.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { verifyX509Svid } from '#spiffe/x509-svid.ts'
import {
  authorityOptions,
  newHybridServer,
  seconds,
  trustDomain,
} from '../../../test/support/authorities.ts'
import type { AuthorityManager } from './authority-manager.ts'

// Switching post-quantum signatures on, off and to another parameter set, by the rotation that there is anyhow.

type Server = ReturnType<typeof newHybridServer>

const { publicKey } = generateEcKeyPair('ec-p256')
const web = spiffeId(trustDomain, '/web')

const svidOf = (manager: AuthorityManager, id = web) =>
  manager.certificateAuthority.issueX509Svid({ spiffeId: id, publicKey, ttlSeconds: 0 })

/** What a verifier with the present bundle says of an SVID; it always has to be valid classically. */
async function judge(server: Server, certificates: readonly Uint8Array[], policy = 'require') {
  const bundle = await server.bundle()
  const presentation = { certificates, bundles: () => bundle, nowSeconds: server.nowSeconds() }
  verifyX509Svid(presentation)
  try {
    return verifyHybridX509Svid({ ...presentation, policy: policy as 'require' }).pq
  } catch (error) {
    return (error as { reason?: string }).reason
  }
}

const activeSet = (manager: AuthorityManager): MlDsaParameterSet | undefined => {
  const active = manager.states('x509').find(({ state }) => state === 'active')
  assert.ok(active)
  return altPublicKey(parseCertificate(active.content))?.parameterSet
}

async function rounds({ clock }: Server, manager: AuthorityManager, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await clock.advance(seconds(10))
    await manager.round()
  }
}

for (const parameterSet of mlDsaParameterSets) {
  test(`a server that starts with ${parameterSet} issues what a verifier that requires it accepts`, async () => {
    const server = newHybridServer()
    using manager = await server.start(parameterSet)
    const [authority] = (await server.bundle()).x509Authorities
    assert.ok(authority)
    const ca = parseCertificate(authority.certificate)
    assert.equal(altPublicKey(ca)?.parameterSet, parameterSet)
    assert.equal(altSignature(ca)?.parameterSet, parameterSet)
    for (const id of [web, spiffeId(trustDomain, '/spire/agent/x/y')]) {
      const { certificates } = await svidOf(manager, id)
      assert.equal(await judge(server, certificates), 'verified')
    }
    const { certificates } = await manager.certificateAuthority.issueServerX509Svid(publicKey)
    assert.equal(await judge(server, certificates), 'verified')
    const [leaf] = certificates.map((der) => parseCertificate(der))
    // A key of its own would double the size, and no handshake uses it.
    assert.equal(leaf && altPublicKey(leaf), undefined)
    assert.ok(leaf?.extensions.every(({ oid, critical }) => !critical || !/\.7[234]$/.test(oid)))
  })
}

test('switched on, a server goes over within a minute, and what it signed before stays valid', async () => {
  const server = newHybridServer()
  using before = await server.start(undefined)
  const old = await svidOf(before)
  using manager = await server.start('ml-dsa-44')
  // Published, and not yet used: agents have to have the new authority first.
  assert.equal((await server.bundle()).x509Authorities.length, 2)
  assert.equal(activeSet(manager), undefined)
  assert.equal(await judge(server, (await svidOf(manager)).certificates, 'prefer'), 'absent')
  await rounds(server, manager, 7)
  assert.equal(activeSet(manager), 'ml-dsa-44')
  assert.equal(await judge(server, (await svidOf(manager)).certificates), 'verified')
  assert.equal(await judge(server, old.certificates, 'prefer'), 'absent')
  assert.equal(await judge(server, old.certificates), 'pq-signature-absent')
})

test('switched on, a server waits for nodes that do not have the new authority yet', async () => {
  let lacking = [spiffeId(trustDomain, '/spire/agent/x')]
  const holders = authorityOptions().holders
  const server = newHybridServer({
    holders: {
      ...holders,
      survey: (sequenceNumber) => ({ ...holders.survey(sequenceNumber), lacking }),
    },
  })
  using first = await server.start(undefined)
  assert.equal(activeSet(first), undefined)
  using manager = await server.start('ml-dsa-44')
  await rounds(server, manager, 30)
  assert.equal(activeSet(manager), undefined)
  lacking = []
  await rounds(server, manager, 1)
  assert.equal(activeSet(manager), 'ml-dsa-44')
})

test('switched to another parameter set, and off, a server goes over the same way', async () => {
  const server = newHybridServer()
  using first = await server.start('ml-dsa-44')
  const old = await svidOf(first)
  using second = await server.start('ml-dsa-65')
  assert.equal(await judge(server, (await svidOf(second)).certificates), 'verified')
  await rounds(server, second, 7)
  assert.equal(activeSet(second), 'ml-dsa-65')
  assert.equal(await judge(server, old.certificates), 'verified')
  using third = await server.start(undefined)
  // The active authority has its key still, and signs with both until it is replaced.
  assert.equal(await judge(server, (await svidOf(third)).certificates), 'verified')
  await rounds(server, third, 7)
  assert.equal(activeSet(third), undefined)
  const [leaf] = (await svidOf(third)).certificates.map((der) => parseCertificate(der))
  assert.equal(leaf && altSignature(leaf), undefined)
})

test('a prepared authority of the wrong make is replaced before it signs', async () => {
  const server = newHybridServer()
  using first = await server.start(undefined)
  assert.ok(first)
  using second = await server.start('ml-dsa-44')
  assert.deepEqual(
    second.states('x509').map(({ state }) => state),
    ['active', 'prepared'],
  )
  using third = await server.start('ml-dsa-65')
  await rounds(server, third, 8)
  assert.equal(activeSet(third), 'ml-dsa-65')
})

test('nothing is signed by half: a post-quantum key that is lost takes its authority with it', async () => {
  const server = newHybridServer()
  using first = await server.start('ml-dsa-44')
  const [lost] = first.states('x509')
  assert.ok(lost)
  await server.alternatives.destroy(lost.keyId)
  using manager = await server.start('ml-dsa-44')
  const active = manager.states('x509').find(({ state }) => state === 'active')
  assert.notEqual(active?.authorityId, lost.authorityId)
  assert.equal(await judge(server, (await svidOf(manager)).certificates), 'verified')
})

test('nothing is signed with a post-quantum key that is not the one in the certificate', async () => {
  const server = newHybridServer()
  using first = await server.start('ml-dsa-44')
  const [exchanged] = first.states('x509')
  assert.ok(exchanged)
  await server.alternatives.generate(exchanged.keyId, 'ml-dsa-44')
  using manager = await server.start('ml-dsa-44')
  const active = manager.states('x509').find(({ state }) => state === 'active')
  assert.notEqual(active?.authorityId, exchanged.authorityId)
})

test('the post-quantum key is destroyed with the classical one', async () => {
  const server = newHybridServer()
  using manager = await server.start('ml-dsa-44')
  const [first] = manager.states('x509')
  assert.ok(first && server.alternatives.get(first.keyId))
  const { authorityId } = await manager.prepare('x509')
  await manager.activate('x509', authorityId)
  await manager.taint('x509', first.authorityId)
  await manager.revoke('x509', first.authorityId)
  assert.equal(server.classical.key(first.keyId), undefined)
  assert.equal(server.alternatives.get(first.keyId), undefined)
})
