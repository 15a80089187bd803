import assert from 'node:assert/strict'
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { SystemRandom } from '#base/random.ts'
import type { Bundle } from '#spiffe/bundle.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { newAuthority, newSvid } from '../../../test/support/certificates.ts'
import { agentIdentity } from '../server-client/agent-identity.ts'
import { AgentStorage } from './agent-storage.ts'

const root = mkdtempSync(join(tmpdir(), 'assay-storage-'))
after(() => rmSync(root, { recursive: true }))
const random = new SystemRandom()
const trustDomain = parseTrustDomain('example.org')
const authority = newAuthority('example.org')

test('AgentStorage keeps an identity in a file of its own user', async () => {
  const directory = join(root, 'identity')
  const storage = await AgentStorage.open(directory, { random })
  assert.equal(await storage.loadIdentity(), undefined)
  const { certificate, key } = newSvid(authority, 'spiffe://example.org/spire/agent/join_token/x')
  const identity = agentIdentity([certificate], { key: key.privateKey, canReattest: false })
  await storage.saveIdentity(identity)
  const loaded = await storage.loadIdentity()
  assert.equal(loaded?.spiffeId, identity.spiffeId)
  assert.equal(loaded?.expiresAtSeconds, identity.expiresAtSeconds)
  assert.ok(loaded?.key.equals(key.privateKey))
  const file = join(directory, 'agent-identity.json')
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.equal(statSync(directory).mode & 0o777, 0o700)

  chmodSync(file, 0o644)
  await assert.rejects(storage.loadIdentity(), { code: 'failed-precondition' })
  await storage.deleteIdentity()
  await storage.deleteIdentity()
  assert.equal(await storage.loadIdentity(), undefined)
})

test('AgentStorage says that an identity is damaged', async () => {
  const directory = join(root, 'damaged')
  const storage = await AgentStorage.open(directory, { random })
  const file = join(directory, 'agent-identity.json')
  for (const text of ['', '{', '{}', '{"key":"AAAA","svid":[]}', '{"svid":7,"key":""}']) {
    writeFileSync(file, text, { mode: 0o600 })
    await assert.rejects(storage.loadIdentity())
  }
})

test('AgentStorage keeps the bundle, and says that it is damaged', async () => {
  const directory = join(root, 'bundle')
  const storage = await AgentStorage.open(directory, { random })
  assert.equal(await storage.loadBundle(trustDomain), undefined)
  const bundle: Bundle = {
    trustDomain,
    x509Authorities: [{ certificate: authority.certificate, tainted: false }],
    jwtAuthorities: [],
    refreshHintSeconds: 300,
    sequenceNumber: 2n ** 63n,
  }
  await storage.saveBundle(bundle)
  assert.deepEqual(await storage.loadBundle(trustDomain), bundle)
  writeFileSync(join(directory, 'bundle.json'), 'no JSON')
  await assert.rejects(storage.loadBundle(trustDomain), SyntaxError)
})
