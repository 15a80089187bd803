import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import process from 'node:process'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { promisify } from 'node:util'
import { decodeProtectedHeader } from 'jose'
import { SystemClock } from '#base/clock.ts'
import { FakeClock } from '#base/fake-clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import { AuthorityManager } from '#server/authority/authority-manager.ts'
import {
  openPkcs11KeyManager,
  type Pkcs11KeyManager,
  type Pkcs11Options,
} from '#server/plugin/key-manager/pkcs11.ts'
import { spiffeId } from '#spiffe/spiffe-id.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { authorityOptions } from '../support/authorities.ts'
import { newFaultyHsm } from '../support/faulty-hsm.ts'
import { newSoftHsm, type SoftHsm } from '../support/softhsm.ts'

const trustDomain = parseTrustDomain('example.org')
const prefix = labelPrefixOf(trustDomain)

function openOn(token: SoftHsm, changes: Partial<Pkcs11Options> = {}): Promise<Pkcs11KeyManager> {
  return openPkcs11KeyManager({
    module: token.module,
    tokenLabel: token.tokenLabel,
    pinFile: token.pinFile,
    environment: token.environment,
    trustDomain,
    clock: new SystemClock(),
    monotonicMs: () => performance.now(),
    random: new SystemRandom(),
    log: silentLog,
    ...changes,
  })
}

/** What pkcs11-tool lists, one object an entry. */
async function listObjects(token: SoftHsm): Promise<string[]> {
  const listed = await token.pkcs11Tool('--list-objects')
  return listed.split(/\n(?=\S)/).filter((entry) => entry.includes('Object'))
}

/** What the token answers to who has the PIN and wants the private key. */
async function attack(token: SoftHsm, label: string): Promise<Record<string, string>> {
  const script = `
    import { readFileSync } from 'node:fs'
    import { createRequire } from 'node:module'
    const pkcs11 = createRequire(process.cwd() + '/')('pkcs11js')
    const [modulePath, pinFile, tokenLabel, label] = process.argv.slice(1)
    const module = new pkcs11.PKCS11()
    module.load(modulePath)
    module.C_Initialize()
    const slot = module.C_GetSlotList(true).find((s) => module.C_GetTokenInfo(s).label.startsWith(tokenLabel))
    const session = module.C_OpenSession(slot, pkcs11.CKF_SERIAL_SESSION | pkcs11.CKF_RW_SESSION)
    module.C_Login(session, pkcs11.CKU_USER, readFileSync(pinFile, 'utf8'))
    module.C_FindObjectsInit(session, [
      { type: pkcs11.CKA_CLASS, value: pkcs11.CKO_PRIVATE_KEY },
      { type: pkcs11.CKA_LABEL, value: label },
    ])
    const [key] = module.C_FindObjects(session, 1)
    module.C_FindObjectsFinal(session)
    const rsa = module.C_GetAttributeValue(session, key, [{ type: pkcs11.CKA_KEY_TYPE }])[0].value[0] === 0
    const secret = rsa ? pkcs11.CKA_PRIVATE_EXPONENT : pkcs11.CKA_VALUE
    const attempt = (call) => { try { call(); return 'done' } catch (error) { return error.message } }
    process.stdout.write(JSON.stringify({
      value: attempt(() => module.C_GetAttributeValue(session, key, [{ type: secret }])),
      extractable: attempt(() => module.C_SetAttributeValue(session, key, [{ type: pkcs11.CKA_EXTRACTABLE, value: true }])),
      label: attempt(() => module.C_SetAttributeValue(session, key, [{ type: pkcs11.CKA_LABEL, value: 'x' }])),
    }))
    module.C_Finalize()`
  const args = ['--input-type=module', '--eval', script]
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [...args, token.module, token.pinFile, token.tokenLabel, label],
    { env: token.environment },
  )
  return JSON.parse(stdout)
}

const idOf = (spki: Uint8Array) => createHash('sha256').update(spki).digest('hex').slice(0, 40)

test('labelPrefixOf() is fixed for a trust domain: keys are found by it for ever', () => {
  assert.equal(prefix, 'assay/bfabc374/')
})

for (const type of ['ec-p256', 'rsa-2048'] as const) {
  test(`generateKey() leaves an ${type} pair that cannot be read, changed or used otherwise`, async () => {
    await using token = await newSoftHsm()
    await using manager = await openOn(token)
    const key = await manager.generateKey('x509ca/A', type)
    const objects = await listObjects(token)
    assert.equal(objects.length, 2)
    const spki = key.publicKey.export({ type: 'spki', format: 'der' })
    for (const object of objects) {
      assert.ok(object.includes(`label:      ${prefix}x509ca/A\n`), object)
      assert.ok(object.includes(`ID:         ${idOf(spki)}`), object)
    }
    const privateKey = objects.find((object) => object.startsWith('Private')) ?? ''
    assert.match(privateKey, /Usage: +sign\n/)
    assert.match(privateKey, /Access: +sensitive, always sensitive, never extract(able)?, local/)
    assert.deepEqual(await attack(token, `${prefix}x509ca/A`), {
      value: 'CKR_ATTRIBUTE_SENSITIVE',
      extractable: 'CKR_VENDOR_DEFINED:27', // CKR_ACTION_PROHIBITED, which the binding cannot name
      label: 'CKR_VENDOR_DEFINED:27',
    })
  })
}

test('generateKey() works with a module that cannot copy keys: the ID is random, the rest the same', async () => {
  await using hsm = await newFaultyHsm()
  await hsm.misbehave('C_CopyObject error 0x54') // CKR_FUNCTION_NOT_SUPPORTED
  {
    await using manager = await hsm.open()
    const key = await manager.generateKey('k', 'ec-p256')
    await key.sign(Uint8Array.of(1))
    const objects = await listObjects(hsm.token)
    assert.equal(objects.length, 2)
    const ids = new Set(objects.map((object) => /ID: +([0-9a-f]{40})\n/.exec(object)?.[1]))
    assert.equal(ids.size, 1)
    assert.ok(!ids.has(idOf(key.publicKey.export({ type: 'spki', format: 'der' }))))
  }
  await using manager = await hsm.open()
  await manager.key('k')?.sign(Uint8Array.of(1))
  assert.equal(manager.keys().length, 1)
})

test('generateKey() that fails halfway leaves nothing behind', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  await hsm.misbehave('C_GenerateKeyPair error 0x70') // CKR_MECHANISM_INVALID
  await assert.rejects(manager.generateKey('k', 'ec-p256'), { code: 'internal' })
  // The second of the two copies fails, and so does generating in place.
  await hsm.misbehave('C_CopyObject error 0x54 2')
  await manager.generateKey('k', 'ec-p256')
  assert.equal((await listObjects(hsm.token)).length, 2)
})

test('destroyKey() removes both halves from the token', async () => {
  await using token = await newSoftHsm()
  await using manager = await openOn(token)
  await manager.generateKey('k', 'ec-p256')
  await manager.destroyKey('k')
  assert.deepEqual(await listObjects(token), [])
})

const madeElsewhere = (label: string, ...more: string[]) => [
  '--keypairgen',
  '--key-type',
  'EC:prime256v1',
  '--label',
  label,
  ...more,
]

test('a key under our prefix that is not guarded as ours are is not used, and keeps its name', async () => {
  await using token = await newSoftHsm()
  await token.pkcs11Tool(...madeElsewhere(`${prefix}modifiable`, '--id', '01'))
  await token.pkcs11Tool(...madeElsewhere(`${prefix}twice`, '--id', '02'))
  await token.pkcs11Tool(...madeElsewhere(`${prefix}twice`, '--id', '03'))
  await using manager = await openOn(token)
  assert.deepEqual(manager.keys(), [])
  for (const id of ['modifiable', 'twice']) {
    await assert.rejects(manager.generateKey(id, 'ec-p256'), { code: 'already-exists' }, id)
  }
})

test('half a pair is not used, and can be destroyed', async () => {
  await using token = await newSoftHsm()
  {
    await using manager = await openOn(token)
    await manager.generateKey('k', 'ec-p256')
  }
  await token.pkcs11Tool('--delete-object', '--type', 'pubkey', '--label', `${prefix}k`)
  await using manager = await openOn(token)
  assert.deepEqual(manager.keys(), [])
  await assert.rejects(manager.generateKey('k', 'ec-p256'), { code: 'already-exists' })
  await manager.destroyKey('k')
  await manager.generateKey('k', 'ec-p256')
})

test('a key that is deleted from the token is noticed, forgotten, and replaced by the authority manager', async () => {
  await using token = await newSoftHsm()
  const clock = new FakeClock()
  await using keyManager = await openOn(token, {
    keyProbeInterval: Temporal.Duration.from({ milliseconds: 200 }),
  })
  const options = authorityOptions({ keyManager, clock })
  using authorities = await AuthorityManager.open(options)
  const active = (kind: 'x509' | 'jwt') =>
    authorities.states(kind).find(({ state }) => state === 'active')
  const before = { x509: active('x509'), jwt: active('jwt') }
  const lost = before.jwt?.keyId ?? ''
  for (const type of ['privkey', 'pubkey'])
    await token.pkcs11Tool('--delete-object', '--type', type, '--label', prefix + lost)
  // Nobody signs, but the probe asks every key.
  while (keyManager.key(lost) !== undefined) await nextTurn()
  assert.ok(keyManager.keys().every(({ id }) => id !== lost))
  while (keyManager.status().state !== 'ok') await nextTurn()
  await authorities.round()
  assert.equal(active('x509')?.keyId, before.x509?.keyId)
  assert.notEqual(active('jwt')?.keyId, lost)
  const { token: jwt } = await authorities.certificateAuthority.issueJwtSvid({
    spiffeId: spiffeId(trustDomain, '/web'),
    audience: ['a'],
    ttlSeconds: 0,
    includeJti: false,
  })
  assert.equal(decodeProtectedHeader(jwt).kid, active('jwt')?.authorityId)
})

test('keys of others on the same token are not seen and not touched', async () => {
  await using token = await newSoftHsm()
  await token.pkcs11Tool(...madeElsewhere('somebody’s', '--id', '01'))
  await using ours = await openOn(token)
  await using theirs = await openOn(token, { trustDomain: parseTrustDomain('example.com') })
  await ours.generateKey('k', 'ec-p256')
  await theirs.generateKey('k', 'ec-p256')
  assert.equal(ours.keys().length, 1)
  await ours.destroyKey('k')
  await theirs.key('k')?.sign(Uint8Array.of(1))
  assert.equal((await listObjects(token)).length, 4)
})

test('a token is found by label, and by serial where the label is not enough', async () => {
  await using token = await newSoftHsm()
  const { where } = await (async () => {
    await using manager = await openOn(token)
    return manager.status()
  })()
  const serial = /serial ([0-9a-f]+)$/.exec(where)?.[1]
  assert.ok(serial)
  const detailOf = async (changes: Partial<Pkcs11Options>) => {
    await using manager = await openOn(token, changes)
    assert.equal(manager.status().state, 'down')
    return manager.status().detail
  }
  assert.match(
    await detailOf({ tokenLabel: 'other' }),
    new RegExp(`no token "other", only: "assay" serial ${serial}`),
  )
  await assert.rejects(token.addToken('assay'), /has a token assay already/)
  const pins = ['--pin', token.pin, '--so-pin', token.pin]
  await promisify(execFile)(
    'softhsm2-util',
    ['--init-token', '--free', '--label', 'assay', ...pins],
    {
      env: token.environment,
    },
  )
  await assert.rejects(openOn(token), {
    code: 'failed-precondition',
    message: /several tokens "assay": set token_serial to one of/,
  })
  assert.match(await detailOf({ tokenSerial: 'ffff' }), /no token "assay" serial ffff/)
  assert.match(await detailOf({ tokenModel: 'nShield' }), /no token "assay" model nShield/)
  await using manager = await openOn(token, {
    tokenSerial: serial,
    tokenModel: 'SoftHSM v2',
    tokenManufacturer: 'SoftHSM project',
  })
  assert.equal(manager.status().where, where)
})

test('a module that is not there, and a signer that is not, are named', async () => {
  await using token = await newSoftHsm()
  await assert.rejects(openOn(token, { module: '/nowhere/pkcs11.so' }), {
    code: 'failed-precondition',
    message: /cannot load the pkcs#11 module \/nowhere\/pkcs11\.so/,
  })
  await assert.rejects(openOn(token, { signerCommand: ['/nowhere/assay-signer'] }), {
    code: 'failed-precondition',
    message: /cannot start \/nowhere\/assay-signer/,
  })
})
