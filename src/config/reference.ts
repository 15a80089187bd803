import { allowedText, type Schema, type Shape } from './schema.ts'

/** A JSON Schema (draft 2020-12) of a configuration file, for editors. */
export function jsonSchema(schema: Schema<unknown>): Readonly<Record<string, unknown>> {
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', ...jsonOf(schema) }
}

/**
 * A Markdown table of every key in a configuration file: path, what is allowed, default, description.
 * Keys stand in the order of the schema; a mapping is followed by its keys.
 */
export function markdownTable(schema: Schema<unknown>): string {
  const rows = rowsOf(schema, '')
  return [
    '| key | allowed | default | meaning |',
    '|---|---|---|---|',
    ...rows.map((cells) => `| ${cells.map(escapeCell).join(' | ')} |`),
    '',
  ].join('\n')
}

function jsonOf(schema: Schema<unknown>): Readonly<Record<string, unknown>> {
  return {
    ...(schema.description === '' ? {} : { description: schema.description }),
    ...(schema.written === undefined ? {} : { default: schema.written }),
    ...jsonOfShape(schema.shape),
  }
}

function jsonOfShape(shape: Shape): Readonly<Record<string, unknown>> {
  switch (shape.kind) {
    case 'leaf':
      return shape.json
    case 'list':
      return { type: 'array', items: jsonOf(shape.item) }
    case 'map':
      return { type: 'object', additionalProperties: jsonOf(shape.value) }
    case 'object': {
      const required = Object.keys(shape.fields).filter((key) => shape.fields[key]?.required)
      const groups = shape.exactlyOne.map((keys) => ({
        oneOf: keys.map((key) => ({ required: [key] })),
      }))
      return {
        // An empty mapping may be written as nothing at all.
        type: required.length === 0 ? ['object', 'null'] : 'object',
        additionalProperties: false,
        properties: jsonOfFields(shape.fields),
        ...(required.length === 0 ? {} : { required }),
        ...(groups.length === 0 ? {} : { allOf: groups }),
      }
    }
    case 'one-of':
      return {
        type: 'object',
        additionalProperties: false,
        properties: jsonOfFields(shape.choices),
        minProperties: 1,
        maxProperties: 1,
      }
  }
}

function jsonOfFields(fields: Readonly<Record<string, Schema<unknown>>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, jsonOf(field)]))
}

type Row = readonly [key: string, allowed: string, written: string, meaning: string]

function rowsOf(schema: Schema<unknown>, key: string): readonly Row[] {
  const { shape, written, required } = schema
  const own: readonly Row[] =
    key === ''
      ? []
      : [
          [
            `\`${key}\``,
            allowedText(shape),
            written !== undefined ? `\`${JSON.stringify(written)}\`` : required ? 'required' : '–',
            schema.description,
          ],
        ]
  const children = (fields: Readonly<Record<string, Schema<unknown>>>): readonly Row[] =>
    Object.entries(fields).flatMap(([name, field]) =>
      rowsOf(field, key === '' ? name : `${key}.${name}`),
    )
  switch (shape.kind) {
    case 'leaf':
      return own
    case 'list':
      // Only the keys of the items are worth rows of their own.
      return [...own, ...rowsOf(shape.item, `${key}[]`).slice(1)]
    case 'map':
      return [...own, ...rowsOf(shape.value, `${key}.<${shape.keyName}>`)]
    case 'object':
      return [...own, ...children(shape.fields)]
    case 'one-of': {
      // Required only among the alternatives: exactly one is given.
      const rows = Object.entries(shape.choices).flatMap(([name, choice]) =>
        rowsOf(choice.optional(), key === '' ? name : `${key}.${name}`),
      )
      return [...own, ...rows]
    }
  }
}

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}
