import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parsePkcs11Uri } from './pkcs11-uri.ts'

const whole =
  "pkcs11:token=Assay%20CA;serial=0a1b;model=SoftHSM%20v2;manufacturer=O'Brien?module-path=/usr/lib/m%2Bx.so&pin-source=file:/etc/assay/hsm-pin"

test('parsePkcs11Uri() reads what names a token', () => {
  assert.deepEqual(parsePkcs11Uri(whole), {
    token: 'Assay CA',
    serial: '0a1b',
    model: 'SoftHSM v2',
    manufacturer: "O'Brien",
    modulePath: '/usr/lib/m+x.so',
    pinFile: '/etc/assay/hsm-pin',
  })
  assert.deepEqual(parsePkcs11Uri('PKCS11:token=t?module-path=/m'), {
    token: 't',
    serial: undefined,
    model: undefined,
    manufacturer: undefined,
    modulePath: '/m',
    pinFile: undefined,
  })
})

test('parsePkcs11Uri() reads a pin-source that is a path, or a file: URI with two slashes more', () => {
  for (const source of ['/p/i', 'file:/p/i', 'file:///p/i', 'file:%2Fp%2Fi']) {
    const uri = `pkcs11:token=t?pin-source=${source}&module-path=/m`
    assert.equal(parsePkcs11Uri(uri).pinFile, '/p/i', source)
  }
})

for (const [what, uri, why] of [
  ['another scheme', 'pkcs12:token=t?module-path=/m', /does not begin with pkcs11:/],
  ['no token', 'pkcs11:serial=1?module-path=/m', /token is missing/],
  ['no attribute at all', 'pkcs11:', /token is missing/],
  ['no module-path', 'pkcs11:token=t', /module-path is missing/],
  ['a PIN', 'pkcs11:token=t?module-path=/m&pin-value=12345', /pin-value is refused: .*pin-source/],
  ['a PIN without its name', 'pkcs11:token=t?module-path=/m&Secret12345', /no name is not taken/],
  ['a module’s name', 'pkcs11:token=t?module-name=softhsm', /module-name is refused/],
  ['a slot', 'pkcs11:token=t;slot-id=1?module-path=/m', /slot-id is refused/],
  ['an object', 'pkcs11:token=t;object=k?module-path=/m', /object is not taken here, only token/],
  ['a vendor’s attribute', 'pkcs11:token=t;x-acme=1?module-path=/m', /x-acme is not taken here/],
  ['a query attribute in the path', 'pkcs11:token=t;module-path=/m', /module-path is not taken/],
  ['an attribute twice', 'pkcs11:token=t;token=u?module-path=/m', /token is there twice/],
  ['an attribute without value', 'pkcs11:token?module-path=/m', /token has no value/],
  ['an empty value', 'pkcs11:token=?module-path=/m', /token is not 1 to 32 bytes/],
  ['a label that is too long', `pkcs11:token=${'t'.repeat(33)}?module-path=/m`, /1 to 32 bytes/],
  ['a blank', 'pkcs11:token=a b?module-path=/m', /has to be percent-encoded/],
  ['half an escape', 'pkcs11:token=a%4?module-path=/m', /has to be percent-encoded/],
  ['a slash in a path attribute', 'pkcs11:token=a/b?module-path=/m', /percent-encoded/],
  ['NUL', 'pkcs11:token=a%00b?module-path=/m', /without NUL/],
  ['what is not UTF-8', 'pkcs11:token=%ff?module-path=/m', /token is not UTF-8/],
  ['a relative module', 'pkcs11:token=t?module-path=m.so', /module-path is not the absolute path/],
  ['a command for the PIN', 'pkcs11:token=t?module-path=/m&pin-source=|/bin/pin', /absolute path/],
  ['a PIN from elsewhere', 'pkcs11:token=t?module-path=/m&pin-source=file://h/p', /absolute path/],
  ['a trailing separator', 'pkcs11:token=t;?module-path=/m', /no name is not taken/],
  ['megabytes', `pkcs11:token=${'t'.repeat(5000)}`, /longer than 4096 bytes/],
] as const) {
  test(`parsePkcs11Uri() refuses ${what}`, () => {
    assert.throws(
      () => parsePkcs11Uri(uri),
      (error: Error) => {
        assert.ok(error instanceof SyntaxError)
        assert.match(error.message, /^invalid pkcs#11 uri: /)
        assert.match(error.message, why)
        assert.doesNotMatch(error.message, /12345/)
        return true
      },
    )
  })
}

test('parsePkcs11Uri() takes no truncation of a URI for another one than its beginning', () => {
  for (let length = 0; length < whole.length; length++) {
    let parsed: ReturnType<typeof parsePkcs11Uri>
    try {
      parsed = parsePkcs11Uri(whole.slice(0, length))
    } catch (error) {
      assert.ok(error instanceof SyntaxError, `${length}`)
      continue
    }
    assert.ok(whole.includes(parsed.modulePath.slice(0, 10)))
  }
})
