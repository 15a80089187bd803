import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { generateKeyPairSync } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import process from 'node:process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { type Log, silentLog } from '#base/log.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import { type Attribute, Cryptoki, ck, type Handle } from '#hsm/signer/cryptoki.ts'
import {
  generationMechanism,
  placementAttributes,
  privateKeyTemplate,
  publicKeyTemplate,
} from '#hsm/signer/key-template.ts'
import { trustDomain } from '../support/authorities.ts'
import { type FaultyHsm, newFaultyHsm } from '../support/faulty-hsm.ts'
import { until } from '../support/signing-load.ts'
import { type SoftHsm, softHsmModule } from '../support/softhsm.ts'
import type { CrashProcessOptions } from './hsm-crash-process.ts'

const pkcs11 = createRequire(import.meta.url)('pkcs11js') as typeof import('pkcs11js')
const prefix = labelPrefixOf(trustDomain)

/** Works on the token in this process, with the right to write, as its owner could. */
async function asOwner(
  token: SoftHsm,
  work: (cryptoki: Cryptoki, session: Handle) => Promise<void>,
): Promise<void> {
  process.env['SOFTHSM2_CONF'] = token.environment['SOFTHSM2_CONF']
  const cryptoki = new Cryptoki(token.module)
  cryptoki.initialize()
  try {
    const [info] = cryptoki.tokens()
    assert.ok(info)
    const session = cryptoki.openSession(info.slot, 'write')
    cryptoki.login(session, new TextEncoder().encode(token.pin))
    await work(cryptoki, session)
  } finally {
    cryptoki.finalize()
  }
}

const changed = (template: Attribute[], changes: Attribute[]): Attribute[] => [
  ...template.filter(({ type }) => !changes.some((change) => change.type === type)),
  ...changes,
]

/** A pair as ours are, but for what is changed in its private half when it is made, and before it is put on the token. */
async function makePair(
  cryptoki: Cryptoki,
  session: Handle,
  pair: { label: string; id: number; made?: Attribute[]; changedLater?: Attribute[] },
): Promise<void> {
  const { label, id, made = [], changedLater } = pair
  const placement = { label: prefix + label, id: Uint8Array.of(id) }
  const { privateKey } = await cryptoki.generateKeyPair(session, generationMechanism('ec-p256'), {
    publicKey: publicKeyTemplate('ec-p256', placement),
    privateKey: changed(
      privateKeyTemplate(changedLater === undefined ? placement : undefined),
      made,
    ),
  })
  if (changedLater === undefined) return
  const module = new pkcs11.PKCS11()
  module.load(softHsmModule)
  module.C_SetAttributeValue(session, privateKey, changedLater)
  cryptoki.copyObject(session, privateKey, placementAttributes(placement))
}

/** A log that keeps why keys were refused, by label. */
function refusalLog(): { log: Log; why: Map<unknown, string> } {
  const why = new Map<unknown, string>()
  const log: Log = {
    ...silentLog,
    error: (fields, message) => void why.set(fields['key'], message),
    child: () => log,
  }
  return { log, why }
}

test('a key is refused for each of the six attributes that SoftHSM lets be wrong, by its name', async () => {
  await using hsm = await newFaultyHsm()
  const { token } = hsm
  const sensitive = (value: boolean) => ({ type: ck.CKA_SENSITIVE, value })
  const extractable = (value: boolean) => ({ type: ck.CKA_EXTRACTABLE, value })
  await asOwner(token, async (cryptoki, session) => {
    const pairs = [
      { label: 'right', made: [] },
      { label: 'sensitive', made: [sensitive(false)] },
      { label: 'always-sensitive', made: [sensitive(false)], changedLater: [sensitive(true)] },
      { label: 'extractable', made: [extractable(true)] },
      { label: 'never-extractable', made: [extractable(true)], changedLater: [extractable(false)] },
      { label: 'modifiable', made: [{ type: ck.CKA_MODIFIABLE, value: true }] },
    ]
    for (const [id, pair] of pairs.entries()) {
      await makePair(cryptoki, session, { ...pair, id: id + 1 })
    }
  })
  const { log, why } = refusalLog()
  await using manager = await hsm.open({ log })
  assert.deepEqual(
    manager.keys().map(({ id }) => id),
    ['right'],
  )
  for (const [label, fault] of [
    ['sensitive', /CKA_SENSITIVE is not true/],
    ['always-sensitive', /: CKA_ALWAYS_SENSITIVE is not true$/],
    ['extractable', /CKA_EXTRACTABLE is not false/],
    ['never-extractable', /: CKA_NEVER_EXTRACTABLE is not true$/],
    ['modifiable', /: CKA_MODIFIABLE is not false$/],
  ] as const) {
    assert.match(why.get(prefix + label) ?? '', fault)
  }
})

test('a key that was made elsewhere and put on the token is refused', async () => {
  await using hsm = await newFaultyHsm()
  const { log, why } = refusalLog()
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  for (const [type, der] of [
    ['privkey', privateKey.export({ type: 'pkcs8', format: 'der' })],
    ['pubkey', publicKey.export({ type: 'spki', format: 'der' })],
  ] as const) {
    const file = join(hsm.token.directory, type)
    await writeFile(file, der)
    const args = ['--type', type, '--label', `${prefix}imported`, '--id', '01']
    await hsm.token.pkcs11Tool('--write-object', file, ...args)
  }
  await using manager = await hsm.open({ log })
  assert.deepEqual(manager.keys(), [])
  assert.match(why.get(`${prefix}imported`) ?? '', /CKA_LOCAL is not true/)
})

test('of two keys under one label the one whose public key is known goes on, and nobody else’s', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  const key = await manager.generateKey('k', 'ec-p256')
  await asOwner(hsm.token, (cryptoki, session) =>
    makePair(cryptoki, session, { label: 'k', id: 7 }),
  )
  await hsm.misbehave('C_Sign error 0x32')
  await assert.rejects(key.sign(Uint8Array.of(1)), { code: 'unavailable' })
  await hsm.misbehave('')
  await until('ok', () => manager.status().state === 'ok')
  await key.sign(Uint8Array.of(1))
  assert.equal(manager.key('k'), key)

  const { log, why } = refusalLog()
  await using another = await hsm.open({ log })
  assert.deepEqual(another.keys(), [], 'who knows neither uses neither')
  assert.match(why.get(`${prefix}k`) ?? '', /2 keys have this label/)
  await assert.rejects(another.generateKey('k', 'ec-p256'), { code: 'already-exists' })
})

test('of two keys that are made under one label at once neither takes the other along', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  // The second copy, which is the private half.
  await hsm.misbehave('C_CopyObject linger 0 2')
  const making = manager.generateKey('k', 'ec-p256')
  making.catch(() => undefined)
  await until('its making', async () => (await hsm.calls('C_CopyObject')) === 2)
  await asOwner(hsm.token, (cryptoki, session) =>
    makePair(cryptoki, session, { label: 'k', id: 7 }),
  )
  await hsm.misbehave('')
  await assert.rejects(making, { code: 'already-exists' })
  await asOwner(hsm.token, async (cryptoki, session) => {
    const left = cryptoki.find(session, [{ type: ck.CKA_LABEL, value: `${prefix}k` }], 10)
    const ids = left.map((object) => cryptoki.attributes(session, object, [ck.CKA_ID])[0]?.toHex())
    assert.deepEqual(ids, ['07', '07'])
  })
})

test('two keys that share a CKA_ID are not used', async () => {
  await using hsm = await newFaultyHsm()
  await asOwner(hsm.token, async (cryptoki, session) => {
    for (let i = 0; i < 2; i++) await makePair(cryptoki, session, { label: 'k', id: 7 })
  })
  const { log, why } = refusalLog()
  await using manager = await hsm.open({ log })
  assert.deepEqual(manager.keys(), [])
  assert.match(why.get(`${prefix}k`) ?? '', /2 private and 2 public keys have this label/)
})

const countObjects = async ({ token }: FaultyHsm): Promise<number> =>
  (await token.pkcs11Tool('--list-objects')).match(/^(Private|Public) Key Object/gm)?.length ?? 0

test('a signer that dies between the two halves of a new key leaves no key, and its name free', async () => {
  await using hsm = await newFaultyHsm()
  await using manager = await hsm.open()
  await hsm.misbehave('C_CopyObject abort 0 2')
  await assert.rejects(manager.generateKey('k', 'ec-p256'), { code: 'unavailable' })
  assert.equal(await countObjects(hsm), 1, 'it died where it was meant to')
  await hsm.misbehave('')
  await until('ok', () => manager.status().state === 'ok')
  const key = await manager.generateKey('k', 'ec-p256')
  await key.sign(Uint8Array.of(1))
  assert.equal(await countObjects(hsm), 2)
})

// The figure to hold is fifty crashes; ASSAY_FAULT_CRASHES=50 runs them.
const crashes = Number(process.env['ASSAY_FAULT_CRASHES'] ?? 4)

test(`${crashes} crashes after a key was made and before the journal says so leave no extra key`, async () => {
  await using hsm = await newFaultyHsm()
  const { token } = hsm
  const program = fileURLToPath(new URL('./hsm-crash-process.ts', import.meta.url))
  const run = (dies: boolean) =>
    new Promise<{ signal: unknown; output: string }>((resolve) => {
      const { module, tokenLabel, pinFile, environment } = token
      const path = join(token.directory, 'datastore.sqlite3')
      const options: CrashProcessOptions = {
        ...{ module, tokenLabel, pinFile, environment, path, dies },
      }
      execFile(process.execPath, [program, JSON.stringify(options)], (error, output) =>
        resolve({ signal: error?.signal, output }),
      )
    })
  for (let i = 0; i < crashes; i++) {
    assert.equal((await run(true)).signal, 'SIGKILL')
    assert.equal(await countObjects(hsm), 2, 'one pair, the same one each time')
  }
  assert.deepEqual(JSON.parse((await run(false)).output), { healthy: true, orphans: [] })
  assert.equal(await countObjects(hsm), 4, 'one key for X.509, one for JWT')
})
