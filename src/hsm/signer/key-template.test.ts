import assert from 'node:assert/strict'
import { constants, createHash, generateKeyPairSync, privateEncrypt, verify } from 'node:crypto'
import { test } from 'node:test'
import { ck } from './cryptoki.ts'
import {
  attributeFault,
  curveOf,
  guardingAttributes,
  keyIdOf,
  privateKeyTemplate,
  publicKeyTemplate,
  signInput,
} from './key-template.ts'

const yes = Uint8Array.of(1)
const no = Uint8Array.of(0)
/** SENSITIVE, ALWAYS_SENSITIVE, EXTRACTABLE, NEVER_EXTRACTABLE, LOCAL, MODIFIABLE. */
const guarded = [yes, yes, no, yes, yes, no]

test('attributeFault() passes a key whose six attributes are right', () => {
  assert.equal(guardingAttributes.length, 6)
  assert.equal(attributeFault(guarded), undefined)
})

test('attributeFault() names each attribute that is not', () => {
  const names = [
    'CKA_SENSITIVE is not true',
    'CKA_ALWAYS_SENSITIVE is not true',
    'CKA_EXTRACTABLE is not false',
    'CKA_NEVER_EXTRACTABLE is not true',
    'CKA_LOCAL is not true',
    'CKA_MODIFIABLE is not false',
  ]
  for (const [index, name] of names.entries()) {
    const flipped = guarded[index] === yes ? no : yes
    assert.equal(attributeFault(guarded.with(index, flipped)), name)
    assert.equal(attributeFault(guarded.with(index, new Uint8Array())), name, 'missing')
    assert.equal(attributeFault(guarded.with(index, new Uint8Array(8))), name, 'no CK_BBOOL')
  }
  assert.equal(attributeFault([]), names.join(', '))
})

test('privateKeyTemplate() allows signing and nothing else', () => {
  const value = (type: number) =>
    privateKeyTemplate().find((attribute) => attribute.type === type)?.value
  assert.equal(value(ck.CKA_SIGN), true)
  assert.equal(value(ck.CKA_SENSITIVE), true)
  assert.equal(value(ck.CKA_PRIVATE), true)
  for (const type of [ck.CKA_EXTRACTABLE, ck.CKA_DECRYPT, ck.CKA_UNWRAP, ck.CKA_DERIVE]) {
    assert.equal(value(type), false)
  }
})

test('a placement makes both halves permanent, fixed, and named alike', () => {
  const placement = { label: 'assay/00000000/k', id: new Uint8Array(20).fill(7) }
  for (const template of [privateKeyTemplate(placement), publicKeyTemplate('ec-p256', placement)]) {
    const value = (type: number) => template.find((attribute) => attribute.type === type)?.value
    assert.equal(value(ck.CKA_TOKEN), true)
    assert.equal(value(ck.CKA_MODIFIABLE), false)
    assert.equal(value(ck.CKA_LABEL), placement.label)
    assert.deepEqual(new Uint8Array(value(ck.CKA_ID) as Uint8Array), placement.id)
  }
})

test('keyIdOf() is the first 20 bytes of SHA-256', () => {
  // NIST: SHA-256("abc").
  const id = keyIdOf(new TextEncoder().encode('abc'))
  assert.equal(id.toHex(), 'ba7816bf8f01cfea414140de5dae2223b00361a3')
})

test('curveOf() knows P-256 and P-384 and no other', () => {
  assert.equal(curveOf(Uint8Array.fromHex('06082a8648ce3d030107')), 'P-256')
  assert.equal(curveOf(Uint8Array.fromHex('06052b81040022')), 'P-384')
  assert.equal(curveOf(Uint8Array.fromHex('06052b81040023')), undefined)
  assert.equal(curveOf(new Uint8Array()), undefined)
})

test('signInput() makes of an RSA digest what RSASSA-PKCS1-v1_5 pads', () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const message = new TextEncoder().encode('to be signed')
  const { mechanism, data } = signInput('rsa-2048', createHash('sha256').update(message).digest())
  assert.equal(mechanism, ck.CKM_RSA_PKCS)
  const signature = privateEncrypt({ key: privateKey, padding: constants.RSA_PKCS1_PADDING }, data)
  assert.ok(verify('sha256', message, publicKey, signature))
})

test('signInput() gives an ECDSA digest as it is', () => {
  const digest = new Uint8Array(48).fill(3)
  assert.deepEqual(signInput('ec-p384', digest), { mechanism: ck.CKM_ECDSA, data: digest })
})
