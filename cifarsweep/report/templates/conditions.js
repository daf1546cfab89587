"use strict";
// Conditions such as 'model=layers5 & lr>0.05': the grammar of cifarsweep/terminal/conditions.py, held to its table of cases.
const conditions = (() => {
  const COMPARISON = /^\s*([\p{L}\p{N}_.@/:-]+)\s*(!=|<=|>=|==?|<|>)([^]*)$/u;
  const VALUE = /\s*(?:'([^']*)'|"([^"]*)")\s*(?=[,&]|$)|([^,&]*)/uy;
  const WHOLE = /^\s*([+-]?)(\d+(?:_\d+)*)\s*$/;
  const DIGITS = "\\d+(?:_\\d+)*";
  const FLOAT = new RegExp(`^\\s*([+-]?)(?:(${DIGITS}\\.?(?:${DIGITS})?|\\.${DIGITS})(e[+-]?${DIGITS})?|(inf|infinity)|(nan))\\s*$`, "i");
  const ORDER = {"<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b};

  // The text itself where it is none. A whole number keeps all its digits.
  const number = (text) => {
    const whole = WHOLE.exec(text);
    if (whole) return BigInt(whole[2].replaceAll("_", "")) * (whole[1] === "-" ? -1n : 1n);
    const match = FLOAT.exec(text);
    if (!match) return text;
    const size = match[4] ? Infinity : match[5] ? NaN : Number((match[2] + (match[3] ?? "")).replaceAll("_", ""));
    return match[1] === "-" ? -size : size;
  };
  const isNumber = (value) => typeof value === "number" || typeof value === "bigint";

  // As Python's fnmatch: * ? [abc] [!abc].
  const matches = (text, pattern) => {
    let source = "";
    for (let at = 0; at < pattern.length; at++) {
      const one = pattern[at];
      const end = pattern.indexOf("]", at + (pattern[at + 1] === "!" ? 3 : 2));
      if (one === "*") source += "[^]*";
      else if (one === "?") source += "[^]";
      else if (one === "[" && end > 0) {
        const inside = pattern.slice(at + 1, end).replace(/[\\[\]^]/g, "\\$&").replace(/^!/, "^");
        source += `[${inside}]`;
        at = end;
      } else source += one.replace(/[\\^$.*+?()[\]{}|/]/, "\\$&");
    }
    try {
      return new RegExp(`^(?:${source})$`).test(text);
    } catch {
      return false; // a range such as [b-a]
    }
  };

  const equals = (value, wanted) => {
    if (value === null || wanted === "") return value === null && (wanted === "" || wanted === "null");
    if (typeof value === "boolean") return wanted === String(value);
    return isNumber(value) ? value == number(wanted) : matches(value, wanted); // == compares whole numbers with others
  };

  const holds = (comparison, valueOf) => {
    const {key, sign, values} = comparison;
    const value = valueOf(key);
    if (sign === "=" || sign === "!=") return values.some((wanted) => equals(value, wanted)) === (sign === "=");
    const wanted = isNumber(value) ? number(values[0]) : values[0];
    if (value === null || (typeof value === "string") !== (typeof wanted === "string")) return false;
    return ORDER[sign](value, wanted);
  };

  // The text's comparisons, and whether all hold of `valueOf` a name. An error says what is refused.
  const parse = (text, checkKey, isOfNumbers) => {
    const comparisons = [];
    for (let rest = text; ; rest = rest.slice(1)) {
      const match = COMPARISON.exec(rest);
      if (!match) throw new Error(`${text}: expected a name, one of = != < <= > >=, and a value; & before a further name`);
      const [, key, written] = match;
      const sign = written === "==" ? "=" : written;
      rest = match[3];
      checkKey(key);
      const values = [];
      for (let at = 0; ; at++) {
        VALUE.lastIndex = at;
        const [, single, double, word] = VALUE.exec(rest);
        values.push(single ?? double ?? word.trim());
        at = VALUE.lastIndex;
        if (rest[at] !== ",") {
          rest = rest.slice(at);
          break;
        }
      }
      const shown = `${key}${sign}${values.join(",")}`;
      if (sign in ORDER && values.length > 1) throw new Error(`${shown}: expected one value; = takes several`);
      const given = values.filter((value) => sign in ORDER || (value !== "" && value !== "null"));
      if (isOfNumbers(key) && given.some((value) => !isNumber(number(value)))) throw new Error(`${shown}: expected a number`);
      comparisons.push({key, sign, values});
      if (!rest) return {comparisons, holds: (valueOf) => comparisons.every((comparison) => holds(comparison, valueOf))};
    }
  };

  // The pattern that only this text matches. A value may hold one kind of quote, so a ? stands for the other.
  const exactly = (text) => {
    const pattern = text.replace(/[*?[]/g, "[$&]");
    return pattern.includes("'") ? pattern.replaceAll('"', "?") : pattern;
  };
  const quoted = (value) => {
    if (!/[\s,&'"]/.test(value)) return value;
    return value.includes('"') ? `'${value}'` : `"${value}"`;
  };
  const written = (comparisons) => comparisons.map(({key, sign, values}) => `${key}${sign}${values.map(quoted)}`).join(" & ");

  return {exactly, holds, number, parse, written};
})();
