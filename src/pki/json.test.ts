import assert from 'node:assert/strict'
import { test } from 'node:test'
import { below, pick, seeded } from '../../test/support/seeded.ts'
import {
  type Json,
  jsonMember,
  jsonObject,
  parseJson,
  stringifyJson,
  stringMember,
} from './json.ts'

const limits = { maxCharacters: 10_000 }

test('parseJson() keeps integers that a double cannot hold', () => {
  const text = '{"a":9007199254740993,"b":[-9223372036854775808],"c":1,"d":1.5,"e":1e300}'
  assert.deepEqual(parseJson(text, limits), {
    a: 9007199254740993n,
    b: [-9223372036854775808n],
    c: 1,
    d: 1.5,
    e: 1e300,
  })
})

test('stringifyJson() writes a bigint as an integer', () => {
  assert.equal(stringifyJson({ a: [2n ** 63n - 1n, 1] }), '{"a":[9223372036854775807,1]}')
})

for (const [name, text] of [
  ['a member twice', '{"a":1,"a":1}'],
  ['a member twice, once escaped', '{"a":1,"\\u0061":2}'],
  ['a member twice further in', '[{"b":{"a":1,"c":[{}],"a":2}}]'],
  ['a member twice around a nested object', '{"a":{"a":1},"a":2}'],
  ['a member twice, with a string that looks like syntax between', '{"a":"},{\\"","a":1}'],
  ['text after the value', '{} {}'],
  ['a comment', '{/**/}'],
  ['nothing', ''],
] as const) {
  test(`parseJson() refuses ${name}`, () => {
    assert.throws(() => parseJson(text, limits), SyntaxError)
  })
}

test('parseJson() takes the same name in different objects and as a value', () => {
  const text = '[{"a":"a","b":["a","a"]},{"a":{"a":{}}}]'
  assert.deepEqual(parseJson(text, limits), JSON.parse(text))
})

test('parseJson() is bounded in length and depth', () => {
  assert.throws(() => parseJson(' '.repeat(10_001), limits), /longer than 10000/)
  assert.throws(() => parseJson('['.repeat(17) + ']'.repeat(17), limits), /deeper than 16/)
  assert.ok(parseJson('['.repeat(16) + ']'.repeat(16), limits))
})

test('parseJson() reads whatever JSON.stringify() writes', () => {
  const random = seeded(2)
  const value = (depth: number): Json =>
    pick<() => Json>(random, [
      () => null,
      () => random() < 0.5,
      () => below(random, 1e9),
      () => String.fromCharCode(...Array.from({ length: 5 }, () => below(random, 0xd800))),
      ...(depth === 0
        ? []
        : [
            () => Array.from({ length: below(random, 4) }, () => value(depth - 1)),
            () =>
              Object.fromEntries(
                Array.from({ length: below(random, 4) }, (_, i) => [`"{${i}\\`, value(depth - 1)]),
              ),
          ]),
    ])()
  for (let i = 0; i < 300; i++) {
    const text = JSON.stringify(value(6))
    assert.deepEqual(parseJson(text, limits), JSON.parse(text))
  }
})

test('jsonMember() sees only what the object itself has', () => {
  const object = jsonObject(parseJson('{"__proto__":{"x":1}}', limits), 'it')
  assert.equal(jsonMember(object, 'constructor'), undefined)
  assert.equal(jsonMember(object, 'x'), undefined)
  assert.deepEqual(jsonMember(object, '__proto__'), { x: 1 })
})

test('jsonObject() and stringMember() refuse other types', () => {
  for (const value of [null, [], 'a', 1, undefined]) {
    assert.throws(() => jsonObject(value, 'it'), /it is not a JSON object/)
  }
  assert.throws(() => stringMember({ a: 1 }, 'a'), /"a" is not a string/)
  assert.equal(stringMember({}, 'a'), undefined)
})
