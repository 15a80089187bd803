import assert from 'node:assert/strict'
import { test } from 'node:test'
import { utf8Bytes } from '#base/bytes.ts'
import {
  encodeMessage,
  encodeSealRequest,
  type OpenRequest,
  parseDestroyRequest,
  parseFailure,
  parseGenerateRequest,
  parseKeyDescription,
  parseOpenRequest,
  parseSealRequest,
  parseSignerEvent,
  type SignerEvent,
} from './protocol.ts'

const open: OpenRequest = {
  module: '/m.so',
  tokenLabel: 'assay',
  tokenSerial: undefined,
  tokenModel: undefined,
  tokenManufacturer: 'Acme',
  pinFile: '/pin',
  pinIsCredential: true,
  spendFinalTry: false,
  labelPrefix: 'assay/00000000/',
  sessions: 4,
}
const key = {
  ref: 1,
  label: 'l',
  type: 'ec-p256',
  publicKey: Uint8Array.of(1, 2, 3),
  id: Uint8Array.of(4, 5),
  attributes: { CKA_SENSITIVE: true, CKA_EXTRACTABLE: false },
} as const
const ready: SignerEvent = {
  state: 'ready',
  token: { label: 'assay', serial: '1', model: 'm' },
  keys: [key],
  refused: [{ label: 'r', why: 'w' }],
}

test('every message is read as it was written', () => {
  assert.deepEqual(parseOpenRequest(encodeMessage(open)), open)
  const withSerial = { ...open, tokenSerial: '42' }
  assert.deepEqual(parseOpenRequest(encodeMessage(withSerial)), withSerial)
  const generate = { label: 'l', type: 'rsa-3072' } as const
  assert.deepEqual(parseGenerateRequest(encodeMessage(generate)), generate)
  const pair = { label: 'l', id: Uint8Array.of(1) }
  assert.deepEqual(parseDestroyRequest(encodeMessage(pair)), pair)
  assert.deepEqual(parseDestroyRequest(encodeMessage({ label: 'l' })), {
    label: 'l',
    id: undefined,
  })
  assert.deepEqual(parseKeyDescription(encodeMessage(key)), key)
  const seal = { label: 'l', context: Uint8Array.of(1), data: Uint8Array.of(2, 3) }
  assert.deepEqual(parseSealRequest(encodeSealRequest(seal)), seal)
  assert.throws(
    () => parseSealRequest(encodeSealRequest({ ...seal, data: new Uint8Array(4097) })),
    SyntaxError,
  )
  const failure = { code: 'already-exists', message: 'm' } as const
  assert.deepEqual(parseFailure(encodeMessage(failure)), failure)
  for (const event of [
    ready,
    { state: 'absent', detail: 'd', needsOperator: true },
    { state: 'refused', detail: '', wasSent: true },
    { state: 'refused', detail: '', wasSent: false },
    { state: 'logging-in', pinVersion: '1 2 3' },
  ]) {
    assert.deepEqual(parseSignerEvent(encodeMessage(event)), event)
  }
})

const parsers = {
  parseOpenRequest,
  parseGenerateRequest,
  parseDestroyRequest,
  parseKeyDescription,
  parseFailure,
  parseSignerEvent,
}

test('no parser takes what is no object, no JSON or no text', () => {
  for (const [name, parse] of Object.entries(parsers)) {
    for (const body of ['', 'null', '[]', '7', '{}', '{"label":7}', '{"state":"ready"}']) {
      assert.throws(() => parse(utf8Bytes(body)), SyntaxError, `${name} ${body}`)
    }
    assert.throws(() => parse(Uint8Array.of(0xff)), TypeError, name)
  }
})

test('no parser takes a message that is cut short', () => {
  const whole = encodeMessage(ready)
  for (let length = 0; length < whole.length; length++) {
    assert.throws(() => parseSignerEvent(whole.subarray(0, length)))
  }
})

test('parseFailure() takes no code that the signer never gives', () => {
  assert.throws(
    () => parseFailure(encodeMessage({ code: 'permission-denied', message: '' })),
    SyntaxError,
  )
})

test('parseSignerEvent() takes no unknown state and no key of unknown type', () => {
  assert.throws(() => parseSignerEvent(encodeMessage({ state: 'happy', detail: '' })), SyntaxError)
  const odd = { ...ready, keys: [{ ...key, type: 'constructor' }] }
  assert.throws(() => parseSignerEvent(encodeMessage(odd)), SyntaxError)
})
