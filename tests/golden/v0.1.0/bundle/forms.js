/** Whether a value has the form of its kind of record: the JSON Schemas that are generated from the records. */

import { demand } from "./checks.js";
import { SCHEMAS } from "./schemas.js";

const patterns = new Map();

/** Refuse a record of another kind, or one that lacks a field, has one too many, or a value out of its bounds. */
export function demandForm(value, kinds, reason, module = null) {
  const kind = kinds.includes(value?.kind) ? value.kind : kinds[0];
  const wrong = faultIn(value, { $ref: SCHEMAS.kinds[kind] }, SCHEMAS.forms, "");
  demand(wrong === null, reason, `${kind}: ${wrong}`, module);
}

/** The first fault of a value against a schema, or null. */
function faultIn(value, schema, defs, at) {
  if (schema.$ref) return faultIn(value, defs[schema.$ref], defs, at);
  if (schema.anyOf) return faultInAll(value, schema, defs, at);
  if (schema.enum) return schema.enum.includes(value) ? null : `${place(at)} is none of ${schema.enum.join(", ")}`;
  switch (schema.type) {
    case "object":
      return faultInObject(value, schema, defs, at);
    case "array":
      return faultInArray(value, schema, defs, at);
    case "string":
      return typeof value === "string" ? faultInText(value, schema, at) : `${place(at)} is not a text`;
    case "integer":
      return Number.isSafeInteger(value) ? faultInNumber(value, schema, at) : `${place(at)} is not a whole number`;
    case "number":
      return typeof value === "number" ? faultInNumber(value, schema, at) : `${place(at)} is not a number`;
    case "boolean":
      return typeof value === "boolean" ? null : `${place(at)} is neither true nor false`;
    case "null":
      return value === null ? null : `${place(at)} is not null`;
    default:
      return faultInAnything(value, at);
  }
}

function faultInAll(value, schema, defs, at) {
  const names = schema.discriminator;
  if (!names)
    return schema.anyOf.every((one) => faultIn(value, one, defs, at) !== null) ? `${place(at)} fits no form` : null;
  const named = value?.[names.propertyName];
  const chosen = typeof named === "string" && Object.hasOwn(names.mapping, named) ? names.mapping[named] : null;
  return chosen ? faultIn(value, { $ref: chosen }, defs, at) : `${place(at)} has no known ${names.propertyName}`;
}

function faultInObject(value, schema, defs, at) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return `${place(at)} is not an object`;
  const known = schema.properties ?? {};
  const missing = (schema.required ?? []).find((key) => !Object.hasOwn(value, key));
  if (missing !== undefined) return `${place(`${at}.${missing}`)} is missing`;
  for (const [key, inner] of Object.entries(value)) {
    const name = schema.propertyNames ? faultIn(key, schema.propertyNames, defs, `${at}.${key}`) : null;
    if (name !== null) return name;
    const rule = Object.hasOwn(known, key) ? known[key] : schema.additionalProperties;
    if (rule === false) return `${place(`${at}.${key}`)} is unknown`;
    const fault = faultIn(inner, rule === true || rule === undefined ? {} : rule, defs, `${at}.${key}`);
    if (fault !== null) return fault;
  }
  return null;
}

function faultInArray(value, schema, defs, at) {
  if (!Array.isArray(value)) return `${place(at)} is not a list`;
  if (value.length < (schema.minItems ?? 0) || value.length > (schema.maxItems ?? Infinity)) {
    return `${place(at)} has ${value.length} entries`;
  }
  const first = schema.prefixItems ?? [];
  for (const [index, inner] of value.entries()) {
    const rule = first[index] ?? (schema.items === true ? {} : (schema.items ?? {}));
    const fault = rule ? faultIn(inner, rule, defs, `${at}[${index}]`) : `${place(at)} has too many entries`;
    if (fault !== null) return fault;
  }
  return null;
}

function faultInText(value, schema, at) {
  // Lengths count characters, of which some are two code units.
  const length = schema.maxLength === undefined && schema.minLength === undefined ? 0 : [...value].length;
  if (length > (schema.maxLength ?? Infinity) || length < (schema.minLength ?? 0))
    return `${place(at)} has ${length} characters`;
  if (schema.pattern === undefined) return null;
  if (!patterns.has(schema.pattern)) patterns.set(schema.pattern, new RegExp(schema.pattern, "u"));
  return patterns.get(schema.pattern).test(value) ? null : `${place(at)} is not spelled as it has to be`;
}

function faultInNumber(value, schema, at) {
  const fits =
    value >= (schema.minimum ?? -Infinity) &&
    value <= (schema.maximum ?? Infinity) &&
    value > (schema.exclusiveMinimum ?? -Infinity) &&
    value < (schema.exclusiveMaximum ?? Infinity);
  return fits ? null : `${place(at)} is out of its bounds`;
}

/** Where anything may stand, whole numbers still have to be exact. */
function faultInAnything(value, at) {
  if (typeof value === "number") {
    return Number.isInteger(value) && !Number.isSafeInteger(value) ? `${place(at)} is no exact number` : null;
  }
  if (value === null || typeof value !== "object") return null;
  for (const [key, inner] of Object.entries(value)) {
    const fault = faultInAnything(inner, `${at}.${key}`);
    if (fault !== null) return fault;
  }
  return null;
}

const place = (at) => (at ? at.replace(/^\./, "") : "the record");
