import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { after, test } from 'node:test'
import { encodePem } from '../../src/pki/pem.ts'
import { generateMlDsaKeyPair } from '../../src/pq-crypto/ml-dsa.ts'
import { AuthorityManager } from '../../src/server/authority/authority-manager.ts'
import { encodePqBundle, pqBundle } from '../../src/spiffe/pq-bundle.ts'
import type { SpiffeId } from '../../src/spiffe/spiffe-id.ts'
import {
  authorityOptions,
  newAlternativeKeysInMemory,
  newMemoryKeyManager,
  trustDomain,
  withAlternativeKeys,
} from '../../test/support/authorities.ts'
import { newSvid, nowSeconds } from '../../test/support/certificates.ts'
import { newHybridAuthority, newHybridSvid } from '../../test/support/hybrid-certificates.ts'

// As somebody else uses it: a program elsewhere, with the package in its node_modules.

const folder = mkdtempSync(join(tmpdir(), 'assay-verify-'))
after(() => rmSync(folder, { recursive: true }))
mkdirSync(join(folder, 'node_modules/@assay'), { recursive: true })
symlinkSync(import.meta.dirname, join(folder, 'node_modules/@assay/verify'))
writeFileSync(
  join(folder, 'program.mjs'),
  `import { readFileSync } from 'node:fs'
import { bundleFromPem, parsePem, parseTrustDomain, verifyHybridX509Svid } from '@assay/verify'
const [svid, bundlePem] = process.argv.slice(2).map((name) => readFileSync(name, 'utf8'))
const bundle = bundleFromPem(parseTrustDomain('example.org'), bundlePem)
try {
  const { spiffeId, pq, parameterSet } = verifyHybridX509Svid({
    certificates: parsePem(svid, 'CERTIFICATE'),
    bundles: (name) => (name === bundle.trustDomain ? bundle : undefined),
    nowSeconds: ${nowSeconds},
    policy: 'require',
  })
  console.log(JSON.stringify({ spiffeId, pq, parameterSet }))
} catch (error) {
  console.log(JSON.stringify({ reason: error.reason }))
}
`,
)

function run(svid: Uint8Array, bundle: Uint8Array): unknown {
  for (const [name, der] of Object.entries({ svid, bundle })) {
    writeFileSync(join(folder, name), encodePem('CERTIFICATE', der))
  }
  const { stdout, stderr } = spawnSync(process.execPath, ['program.mjs', 'svid', 'bundle'], {
    cwd: folder,
    encoding: 'utf8',
  })
  assert.equal(stderr, '')
  return JSON.parse(stdout)
}

test('@assay/verify is imported by its name and verifies a hybrid X.509-SVID', () => {
  const authority = newHybridAuthority('example.org')
  const svid = newHybridSvid(authority, 'spiffe://example.org/web')
  assert.deepEqual(run(svid.certificate, authority.certificate), {
    spiffeId: 'spiffe://example.org/web',
    pq: 'verified',
    parameterSet: 'ml-dsa-44',
  })
})

test('@assay/verify refuses one whose post-quantum signature was left out', () => {
  const authority = newHybridAuthority('example.org')
  const svid = newSvid(authority, 'spiffe://example.org/web')
  assert.deepEqual(run(svid.certificate, authority.certificate), { reason: 'pq-signature-absent' })
})

test('@assay/verify verifies SVIDs by ML-DSA alone with a post-quantum bundle, and refuses others', async () => {
  const options = authorityOptions({
    pqParameterSet: 'ml-dsa-44',
    keyManager: withAlternativeKeys(newMemoryKeyManager(), {
      alternatives: newAlternativeKeysInMemory(),
      parameterSet: 'ml-dsa-44',
    }),
  })
  using manager = await AuthorityManager.open(options)
  const ca = manager.certificateAuthority
  const spiffeId = 'spiffe://example.org/web' as SpiffeId
  const { publicKey } = await generateMlDsaKeyPair('ml-dsa-44')
  const { certificates } = await ca.issuePqX509Svid({ spiffeId, publicKey, ttlSeconds: 0 })
  const { token } = await ca.issuePqJwtSvid({
    spiffeId,
    audience: ['db'],
    ttlSeconds: 0,
    includeJti: false,
  })
  const bundle = await options.datastore.bundle(trustDomain)
  assert.ok(bundle)
  const judge = (svid: Uint8Array, jwt: string): unknown => {
    writeFileSync(join(folder, 'pq-svid'), encodePem('CERTIFICATE', svid))
    writeFileSync(join(folder, 'pq-bundle'), encodePqBundle(pqBundle(bundle)))
    writeFileSync(join(folder, 'token'), jwt)
    writeFileSync(
      join(folder, 'pq.mjs'),
      `import { readFileSync } from 'node:fs'
import { parsePem, parsePqBundle, parseTrustDomain, validatePqJwtSvid, verifyPqX509Svid } from '@assay/verify'
const [svid, document, token] = ['pq-svid', 'pq-bundle', 'token'].map((name) => readFileSync(name, 'utf8'))
const bundle = parsePqBundle(document, parseTrustDomain('example.org'))
const trust = { bundles: () => bundle, nowSeconds: ${nowSeconds} }
const judge = (verify) => {
  try {
    return verify().spiffeId
  } catch (error) {
    return error.reason
  }
}
console.log(JSON.stringify([
  judge(() => verifyPqX509Svid({ certificates: parsePem(svid, 'CERTIFICATE'), ...trust })),
  judge(() => validatePqJwtSvid(token, { audience: 'db', ...trust })),
]))
`,
    )
    const { stdout, stderr } = spawnSync(process.execPath, ['pq.mjs'], {
      cwd: folder,
      encoding: 'utf8',
    })
    assert.equal(stderr, '')
    return JSON.parse(stdout)
  }
  assert.deepEqual(judge(certificates[0] ?? new Uint8Array(), token), [spiffeId, spiffeId])
  const stranger = newSvid(newHybridAuthority('example.org'), spiffeId)
  assert.deepEqual(judge(stranger.certificate, `${token.slice(0, -8)}AAAAAAAA`), [
    'unknown-authority',
    'token-signature-invalid',
  ])
})
