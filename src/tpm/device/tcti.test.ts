import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseTcti } from './tcti.ts'

for (const [text, managed, path] of [
  ['device:/dev/tpmrm0', true, '/dev/tpmrm0'],
  ['device:/dev/tpm0', false, '/dev/tpm0'],
  ['tabrmd', true, undefined],
  ['tabrmd:bus_type=session', true, undefined],
  ['swtpm:path=/run/sock', false, '/run/sock'],
  ['swtpm:host=127.0.0.1,port=2321', false, undefined],
] as const)
  test(`parseTcti() accepts ${text}`, () => {
    assert.deepEqual(parseTcti(text), { text, managed, path })
  })

for (const text of [
  '',
  'cmd:false',
  'cmd:tpm2_send /dev/tpm0',
  'device',
  'device:dev/tpm0',
  'device:/dev/tpm0;x',
  'device:/dev/tpm0\n',
  'libtss2-tcti-device.so.0',
  './evil.so',
  '/tmp/evil.so:x',
  'mssim:host=127.0.0.1',
  'pcap:device:/dev/tpm0',
  'swtpm:path=relative',
  'swtpm:host=127.0.0.1,port=2321,path=/x y',
])
  test(`parseTcti() refuses ${JSON.stringify(text)}`, () => {
    assert.throws(() => parseTcti(text), { reason: 'tpm-tcti-invalid', code: 'invalid-argument' })
  })
