// A wrong PIN of the upstream authority's token is sent once, and never again until an operator says so.
import assert from 'node:assert/strict'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { SystemClock } from '#base/clock.ts'
import { silentLog } from '#base/log.ts'
import { SystemRandom } from '#base/random.ts'
import { labelPrefixOf } from '#hsm/label-prefix.ts'
import { defaultCaSubject } from '#issuance/ca-certificate.ts'
import { encodePem } from '#pki/pem.ts'
import { KeysDefinition } from '#rpc/gen/assay/server/v1/keys.ts'
import { parseTrustDomain } from '#spiffe/trust-domain.ts'
import { issueRootCertificate } from '../../src/server/ca/authority-certificate.ts'
import { Pkcs11Upstream } from '../../src/server/plugin/upstream-authority/pkcs11.ts'
import { type FaultyHsm, newFaultyHsm } from '../support/faulty-hsm.ts'
import { LiveServer } from '../support/live-server.ts'

const trustDomain = parseTrustDomain('example.org')
const keyLabel = `${labelPrefixOf(trustDomain)}ca`
const refused = { code: 'failed-precondition', reason: 'hsm-pin-refused' }
let hsm: FaultyHsm
let certFilePath = ''

before(async () => {
  hsm = await newFaultyHsm()
  certFilePath = join(hsm.token.directory, 'ca.pem')
  await using manager = await hsm.openDirectly()
  const certificate = await issueRootCertificate(await manager.generateKey('ca', 'ec-p256'), {
    trustDomain,
    subject: defaultCaSubject,
    serialNumber: Uint8Array.of(1),
    nowSeconds: Math.floor(Date.now() / 1000),
    ttlSeconds: 365 * 24 * 3600,
  })
  await writeFile(certFilePath, encodePem('CERTIFICATE', certificate.raw))
})

after(async () => {
  await hsm[Symbol.asyncDispose]()
})

async function writePin(pin: string): Promise<void> {
  await rm(hsm.token.pinFile, { force: true })
  await writeFile(hsm.token.pinFile, pin, { mode: 0o400 })
}

const open = (): Pkcs11Upstream =>
  new Pkcs11Upstream({
    module: hsm.module,
    tokenLabel: hsm.token.tokenLabel,
    tokenSerial: undefined,
    pinFile: hsm.token.pinFile,
    refusalFile: join(hsm.token.directory, 'refused'),
    keyLabel,
    certFilePath,
    bundleFilePath: undefined,
    signerSocketPath: undefined,
    environment: hsm.environment,
    trustDomain,
    clock: new SystemClock(),
    monotonicMs: () => performance.now(),
    random: new SystemRandom(),
    log: silentLog,
  })

test('Pkcs11Upstream sends a wrong PIN once over restarts, and works after resume() with the right one', async () => {
  const before = await hsm.calls('C_Login')
  const sent = async (): Promise<number> => (await hsm.calls('C_Login')) - before
  const message = Uint8Array.of(1)
  await writePin('wrong-pin')
  {
    await using upstream = open()
    const ca = await upstream.current()
    assert.equal(upstream.refusal, undefined)
    for (let i = 0; i < 3; i++) await assert.rejects(ca.sign(message), refused)
    assert.match(upstream.refusal ?? '', /CKR_PIN_INCORRECT/)
    assert.equal(await sent(), 1)
  }
  await using upstream = open()
  const ca = await upstream.current()
  assert.match(upstream.refusal ?? '', /CKR_PIN_INCORRECT/)
  await assert.rejects(ca.sign(message), refused)
  assert.equal(await sent(), 1, 'a restart is no operator')
  await assert.rejects(upstream.resume(), refused)
  assert.equal(await sent(), 2)
  await writePin(hsm.token.pin)
  await assert.rejects(ca.sign(message), refused)
  assert.equal(await sent(), 2)
  await upstream.resume()
  assert.equal(upstream.refusal, undefined)
  await ca.sign(message)
  await upstream.resume()
  assert.equal(await sent(), 3)
})

test('Pkcs11Upstream.resume() before anything was signed tries what was refused before the start', async () => {
  await writePin('wrong-pin')
  {
    await using upstream = open()
    await assert.rejects((await upstream.current()).sign(Uint8Array.of(1)), refused)
  }
  const before = await hsm.calls('C_Login')
  await using upstream = open()
  await assert.rejects(upstream.resume(), refused)
  assert.equal(await hsm.calls('C_Login'), before + 1)
  await writePin(hsm.token.pin)
  await upstream.resume()
  await (await upstream.current()).sign(Uint8Array.of(1))
  assert.equal(await hsm.calls('C_Login'), before + 2)
})

test('a server whose upstream refused the PIN says so over restarts, and works after assay hsm resume', async () => {
  process.env['SOFTHSM2_CONF'] = hsm.token.environment['SOFTHSM2_CONF']
  const { module, tokenLabel, pinFile, directory } = hsm.token
  const start = (): Promise<LiveServer> =>
    LiveServer.start({
      directory,
      keyManager: 'memory: {}',
      settings: `upstream_authority: { pkcs11: { module: ${module}, token_label: ${tokenLabel}, pin_file: ${pinFile}, key_label: ${keyLabel}, cert_file_path: ${certFilePath} } }`,
    })
  await writePin('wrong-pin')
  {
    await using live = await start()
    assert.notEqual((await live.local.client(KeysDefinition).getStatus({})).state, 'ok')
  }
  await using live = await start()
  const keys = live.local.client(KeysDefinition)
  const ready = await fetch(`http://127.0.0.1:${live.server.healthPort}/ready`)
  assert.match(await ready.text(), /"upstream-authority":[^}]*refused the PIN.*at an earlier try/)
  await assert.rejects(keys.resume({}), refused)
  await writePin(hsm.token.pin)
  assert.equal((await keys.resume({})).state, 'ok')
  assert.equal((await keys.getStatus({})).detail, '')
})
